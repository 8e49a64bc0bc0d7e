#include "retriever_service/replica/in_sync_set.h"

#include <algorithm>
#include <iterator>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

// How often a waiting write looks whether its caller is still there.
constexpr std::chrono::milliseconds kCheckEvery{50};

absl::Status Unknown(std::string_view why) {
  return Error(absl::StatusCode::kUnavailable, Reason::kWriteOutcomeUnknown,
               StrCat("the write may or may not stay, repeat it: ", why));
}

absl::Status ShuttingDown() {
  return Error(absl::StatusCode::kUnavailable, Reason::kShuttingDown,
               "nothing was done: the shard's primary is stopping; wait for it, or promote another");
}

}  // namespace

void InSyncSet::Lead(uint64_t epoch, const std::vector<std::string>& others, uint32_t min_in_sync) {
  const MutexLock lock(mutex_);
  epoch_ = epoch;
  led_since_ = Clock::now();
  min_in_sync_ = min_in_sync;
  others_ = {others.begin(), others.end()};
  for (const std::string& other : others) joining_.erase(other);
  changed_.NotifyAll();
}

void InSyncSet::Follow(const absl::Status& why) {
  const MutexLock lock(mutex_);
  refusal_ = why;
  if (epoch_ == 0) return;
  epoch_ = 0;
  ++leaderships_;
  others_.clear();
  joining_.clear();
  progress_.clear();
  acknowledged_.Clear();
  changed_.NotifyAll();
}

void InSyncSet::Close() {
  {
    const MutexLock lock(mutex_);
    closed_ = true;
    const Clock::time_point end = Clock::now() + late_after_;
    while (writes_ > 0 && changed_.WaitUntil(mutex_, end)) {
    }
  }
  Follow(ShuttingDown());
}

uint64_t InSyncSet::epoch() const {
  const MutexLock lock(mutex_);
  return epoch_;
}

absl::StatusOr<uint64_t> InSyncSet::BeginWrite(uint64_t epoch) {
  const MutexLock lock(mutex_);
  if (closed_) return ShuttingDown();
  if (epoch_ == 0) return refusal_;
  if (epoch != epoch_) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kStaleEpoch,
                 StrCat("the shard is in epoch ", epoch_, ", the call in ", epoch, ": read the cluster file again"));
  }
  if (1 + others_.size() < min_in_sync_) {
    return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
                 StrCat("only ", 1 + others_.size(), " replicas are in sync, writes need ", min_in_sync_,
                        ": nothing was done; bring back the others"));
  }
  ++writes_;
  return leaderships_;
}

void InSyncSet::EndWrite() {
  const MutexLock lock(mutex_);
  --writes_;
  changed_.NotifyAll();
}

bool InSyncSet::Has(const std::string& replica, const shardpb::Position& position) const {
  const auto it = progress_.find(replica);
  return it != progress_.end() && !IsBefore(it->second.position, position);
}

bool InSyncSet::AllHave(const shardpb::Position& position) const {
  for (const std::string& other : others_) {
    if (!Has(other, position)) return false;
  }
  for (const auto& [other, goal] : joining_) {
    if (!Has(other, position)) return false;
  }
  return true;
}

absl::Status InSyncSet::WaitFor(uint64_t write, const shardpb::Position& position, const CallContext& context) {
  const MutexLock lock(mutex_);
  const auto waiting = waiting_.emplace(position.number(), Waiting{position, Clock::now()});
  absl::Status status = WaitLocked(write, position, context);
  waiting_.erase(waiting);
  if (status.ok() && IsBefore(acknowledged_, position)) acknowledged_ = position;
  return status;
}

absl::Status InSyncSet::WaitLocked(uint64_t write, const shardpb::Position& position, const CallContext& context) {
  while (true) {
    if (write != leaderships_) return Unknown("this replica is no longer the shard's primary");
    if (1 + others_.size() < min_in_sync_) {
      return Unknown(StrCat("only ", 1 + others_.size(), " replicas are in sync, writes need ", min_in_sync_));
    }
    if (AllHave(position)) return absl::OkStatus();
    if (!context.Check().ok()) return Unknown("the caller left before all replicas had it");
    changed_.WaitUntil(mutex_, Clock::now() + kCheckEvery);
  }
}

bool InSyncSet::Pulled(const std::string& replica, const shardpb::Position& has, const shardpb::Position& newest) {
  const MutexLock lock(mutex_);
  Progress& progress = progress_[replica];
  const bool in_sync = others_.contains(replica);
  if (in_sync && (has.number() == 0 || IsBefore(has, progress.position))) {
    progress.lost = true;
    return false;
  }
  const bool went_on = IsBefore(progress.position, has);
  progress.sent_again = progress.sent && !went_on;
  progress.sent = progress.sent_again;
  progress.position = has;
  progress.lost = false;
  if (!in_sync && !joining_.contains(replica) && has.number() > 0 && !IsBefore(has, newest)) {
    joining_[replica] = IsBefore(newest, acknowledged_) ? acknowledged_ : newest;
  }
  changed_.NotifyAll();
  return true;
}

void InSyncSet::Sent(const std::string& replica) {
  const MutexLock lock(mutex_);
  Progress& progress = progress_[replica];
  progress.sent = true;
  if (!progress.sent_again) progress.moved = Clock::now();
}

bool InSyncSet::IsLate(const std::string& replica, Clock::time_point now) const {
  const auto it = progress_.find(replica);
  const Clock::time_point served = it == progress_.end() ? led_since_ : std::max(led_since_, it->second.moved);
  for (const auto& [number, waiting] : waiting_) {
    if (!Has(replica, waiting.position) && now - std::max(waiting.since, served) >= late_after_) return true;
  }
  return false;
}

InSyncSet::Proposal InSyncSet::Propose(Clock::time_point now) {
  const MutexLock lock(mutex_);
  Proposal proposal;
  if (closed_) return proposal;  // nobody can pull from a server that stops
  for (const std::string& other : others_) {
    if (IsLate(other, now) || progress_[other].lost) proposal.drop.push_back(other);
  }
  for (auto it = joining_.begin(); it != joining_.end();) {
    const bool late = IsLate(it->first, now);
    if (!late && Has(it->first, it->second)) proposal.add.push_back(it->first);
    it = late ? joining_.erase(it) : std::next(it);
  }
  if (!proposal.empty()) changed_.NotifyAll();
  return proposal;
}

}  // namespace retro
