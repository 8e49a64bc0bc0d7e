#include "retriever_service/shard/applied_position.h"

#include <algorithm>
#include <chrono>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

// How often a waiting call looks whether its caller is still there.
constexpr std::chrono::milliseconds kCheckEvery{50};
constexpr int64_t kWaitSecondsMax = 3600;

Clock::time_point EndOf(const google::protobuf::Duration& wait) {
  const int64_t seconds = std::clamp<int64_t>(wait.seconds(), 0, kWaitSecondsMax);
  return Clock::now() + std::chrono::seconds(seconds) + std::chrono::nanoseconds(std::max(0, wait.nanos()));
}

absl::Status Behind(uint32_t shard, const shardpb::Position& have, const shardpb::Position& wanted) {
  const std::string lag = have.number() < wanted.number() ? StrCat(wanted.number() - have.number(), " changes")
                                                          : StrCat(wanted.epoch() - have.epoch(), " epochs");
  return Error(absl::StatusCode::kUnavailable, Reason::kBehindToken,
               StrCat("shard ", shard, " is ", lag, " behind the consistency token (at ", have.epoch(), "/",
                      have.number(), ", wanted ", wanted.epoch(), "/", wanted.number(), "): try again or wait longer"));
}

}  // namespace

shardpb::Position AppliedPosition::Get() const {
  const MutexLock lock(mutex_);
  return position_;
}

void AppliedPosition::Advance(const shardpb::Position& position) {
  const MutexLock lock(mutex_);
  position_ = position;
  advanced_.NotifyAll();
}

absl::Status AppliedPosition::WaitFor(const shardpb::ReadBarrier& barrier, const CallContext& context) const {
  const MutexLock lock(mutex_);
  if (Covers(position_, barrier.position())) return absl::OkStatus();
  if (waiting_ >= waiting_max_) return Behind(shard_, position_, barrier.position());
  ++waiting_;
  const absl::Status status = WaitLocked(barrier, context);
  --waiting_;
  return status;
}

void AppliedPosition::WaitForChange(const shardpb::Position& position, Clock::time_point deadline) const {
  const MutexLock lock(mutex_);
  while (position_.epoch() == position.epoch() && position_.number() == position.number()) {
    if (!advanced_.WaitUntil(mutex_, deadline)) return;
  }
}

absl::Status AppliedPosition::WaitLocked(const shardpb::ReadBarrier& barrier, const CallContext& context) const {
  const Clock::time_point end = EndOf(barrier.max_wait());
  while (!Covers(position_, barrier.position())) {
    RETRO_RETURN_IF_ERROR(context.Check());
    const Clock::time_point now = Clock::now();
    if (now >= end) return Behind(shard_, position_, barrier.position());
    advanced_.WaitUntil(mutex_, std::min(end, now + kCheckEvery));
  }
  return absl::OkStatus();
}

}  // namespace retro
