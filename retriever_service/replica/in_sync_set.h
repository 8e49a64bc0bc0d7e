// Which replicas a primary's acknowledgements wait for, how far each has come, and who has become late or has caught
// up. Knows no files and no network: its owner tells it what happens and carries out what it proposes.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/base/sync.h"
#include "common/document/protos.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// Any thread.
class InSyncSet {
 public:
  using Clock = std::chrono::steady_clock;

  // A replica is late if a write has waited so long for it, and it has taken nothing for so long.
  explicit InSyncSet(std::chrono::milliseconds late_after) : late_after_(late_after) {}

  // This process is the primary, in this epoch, and `others` are in sync with it; `min_in_sync` counts the primary.
  void Lead(uint64_t epoch, const std::vector<std::string>& others, uint32_t min_in_sync) ABSL_LOCKS_EXCLUDED(mutex_);
  // It is not, or no longer: writes that wait end with WRITE_OUTCOME_UNKNOWN. `why` refuses what comes.
  void Follow(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  // Before the process stops, while the others can still pull: no write begins any more, and who is in sync stays so.
  // Returns when none is under way. After `late_after` those that still are end as with Follow.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);
  // 0 if it is not the primary.
  uint64_t epoch() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Before a write in this epoch: an error, or what WaitFor wants; then EndWrite must follow. STALE_EPOCH for another
  // epoch; UNAVAILABLE if too few are in sync (SHARD_UNAVAILABLE), or after Close (SHUTTING_DOWN).
  absl::StatusOr<uint64_t> BeginWrite(uint64_t epoch) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndWrite() ABSL_LOCKS_EXCLUDED(mutex_);
  // Returns OK when all that are in sync have everything up to the position. Otherwise UNAVAILABLE
  // (WRITE_OUTCOME_UNKNOWN), also if the caller leaves.
  absl::Status WaitFor(uint64_t write, const shardpb::Position& position, const CallContext& context)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // A replica has everything up to `has` on disk while `newest` is the newest change. False if it has less than it had,
  // or nothing: it lost what it had and must not be in sync.
  bool Pulled(const std::string& replica, const shardpb::Position& has, const shardpb::Position& newest)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // It has taken a part of the answer to that. It is not late for as long again, unless it has pulled the same changes
  // before: a large change takes its time, and one that cannot be applied is no progress.
  void Sent(const std::string& replica) ABSL_LOCKS_EXCLUDED(mutex_);

  // One that has caught up joins: writes wait for it from then on, and once it has all that was acknowledged before, it
  // may be named in sync for all to see.
  struct Proposal {
    std::vector<std::string> drop;  // in sync, and late or with a loss
    std::vector<std::string> add;   // not in sync, and has everything that was acknowledged
    bool empty() const { return drop.empty() && add.empty(); }
  };
  Proposal Propose(Clock::time_point now) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Progress {
    shardpb::Position position;
    bool lost = false;
    bool sent = false;        // changes after `position`
    bool sent_again = false;  // what is sent now was sent before
    Clock::time_point moved;  // when it last took a part of what was new to it
  };
  bool IsLate(const std::string& replica, Clock::time_point now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Has(const std::string& replica, const shardpb::Position& position) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AllHave(const shardpb::Position& position) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WaitLocked(uint64_t write, const shardpb::Position& position, const CallContext& context)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::chrono::milliseconds late_after_;
  mutable Mutex mutex_;
  CondVar changed_;
  uint64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t leaderships_ ABSL_GUARDED_BY(mutex_) = 0;  // counts Follow: a write belongs to one
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int writes_ ABSL_GUARDED_BY(mutex_) = 0;  // under way
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  uint32_t min_in_sync_ ABSL_GUARDED_BY(mutex_) = 1;
  Clock::time_point led_since_ ABSL_GUARDED_BY(mutex_);  // this epoch: nobody could pull while it began
  std::set<std::string> others_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, shardpb::Position> joining_ ABSL_GUARDED_BY(mutex_);  // and what they must have
  shardpb::Position acknowledged_ ABSL_GUARDED_BY(mutex_);                    // the newest, of this leadership
  std::map<std::string, Progress> progress_ ABSL_GUARDED_BY(mutex_);          // of this leadership
  struct Waiting {
    shardpb::Position position;
    Clock::time_point since;
  };
  std::multimap<uint64_t, Waiting> waiting_ ABSL_GUARDED_BY(mutex_);  // by number
};

}  // namespace retro
