// How far a shard's index and store have come, and waiting for it to come further.
#pragma once

#include <chrono>
#include <optional>

#include "absl/status/status.h"
#include "common/base/call_context.h"
#include "common/base/sync.h"
#include "common/document/protos.h"
#include "retriever_service/store/store.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// Any thread.
class AppliedPosition {
 public:
  // As far as the store, which must outlive this.
  AppliedPosition(const Store& store, int waiting_max)
      : store_(store), waiting_max_(waiting_max), position_(store.last_position()) {}

  shardpb::Position Get() const ABSL_LOCKS_EXCLUDED(mutex_);
  void Advance(const shardpb::Position& position) ABSL_LOCKS_EXCLUDED(mutex_);

  // Who waits, or comes to wait, does so no longer, as if it took longer than he allows.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits until the barrier's position is reached. UNAVAILABLE (BEHIND_TOKEN), with the lag, if that takes longer than
  // it allows, or at once if waiting_max calls wait already for longer than any may (kShortWait): each holds a thread
  // that others could use.
  // FAILED_PRECONDITION (FOREIGN_STORE) if the store has lost that change.
  absl::Status WaitFor(const shardpb::ReadBarrier& barrier, const CallContext& context) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until it is another than `position`, or the deadline, or Close.
  void WaitForChange(const shardpb::Position& position, std::chrono::steady_clock::time_point deadline) const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // OK or an error once it needs no waiting.
  std::optional<absl::Status> Judge(const shardpb::Position& wanted) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Behind(const shardpb::Position& wanted) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WaitLocked(const shardpb::Position& wanted, std::chrono::steady_clock::time_point end,
                          const CallContext& context) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Store& store_;
  const int waiting_max_;
  mutable Mutex mutex_;
  mutable CondVar advanced_;
  shardpb::Position position_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  mutable int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace retro
