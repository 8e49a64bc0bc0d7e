// How much of what clients send may be in memory at once, over all streams: a slow store slows the senders instead of
// filling it.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "common/base/call_context.h"
#include "common/base/sync.h"
#include "common/base/turns.h"

namespace retro {

class IngestBudget {
 public:
  IngestBudget(size_t documents_max, size_t bytes_max) : documents_max_(documents_max), bytes_max_(bytes_max) {}

  // Takes room for one document of `bytes`; `ready` is called once it is there: at once on this thread, or later on a
  // thread that releases, there not inside another's `ready`. In the order of the calls with the same `key`; keys that
  // wait take turns. A document larger than the whole budget gets in when nothing else is.
  // `who` names a waiting one to Withdraw.
  void Acquire(size_t bytes, const std::string& key, std::function<void()> ready, const void* who = nullptr);
  // Whether it waits no longer because of this: its `ready` is not called.
  bool Withdraw(const void* who);
  void Release(size_t bytes);
  // A document that is there needs so much less than was taken for it.
  void Shrink(size_t bytes);

  size_t documents() const;
  size_t bytes() const;

 private:
  struct Waiting {
    size_t bytes;
    std::function<void()> ready;
    const void* who;
  };
  bool Fits(size_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveBack(size_t documents, size_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  const size_t documents_max_;
  const size_t bytes_max_;
  mutable Mutex mutex_;
  size_t documents_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  Turns<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
};

// Room in a budget for one document, given back with this; none if the caller has left, see Check. One thread at a
// time.
class IngestRoom {
 public:
  // Waits for it, while others give theirs back and until the caller leaves: who waits must have none that they wait
  // for. `budget` must outlive this.
  IngestRoom(IngestBudget& budget, size_t bytes, const CallContext& context);
  ~IngestRoom() {
    if (status_.ok()) budget_.Release(bytes_);
  }
  IngestRoom(const IngestRoom&) = delete;
  IngestRoom& operator=(const IngestRoom&) = delete;

  // As CallContext::Check, OK if there is room.
  const absl::Status& Check() const { return status_; }
  // It needs no more than that.
  void ShrinkTo(size_t bytes);

 private:
  IngestBudget& budget_;
  size_t bytes_;
  absl::Status status_;
};

}  // namespace retro
