#include "retriever_service/shard/applied_position.h"

#include <algorithm>
#include <chrono>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/query/limits.h"
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

}  // namespace

shardpb::Position AppliedPosition::Get() const {
  const MutexLock lock(mutex_);
  return position_;
}

void AppliedPosition::Close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  advanced_.NotifyAll();
}

void AppliedPosition::Advance(const shardpb::Position& position) {
  const MutexLock lock(mutex_);
  position_ = position;
  advanced_.NotifyAll();
}

std::optional<absl::Status> AppliedPosition::Judge(const shardpb::Position& wanted) const {
  if (store_.HasLost(wanted)) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kForeignStore,
                 StrCat("consistency_token: shard ", store_.identity().shard, " has lost change ", wanted.epoch(), "/",
                        wanted.number(), ", which it covers (at ", position_.epoch(), "/", position_.number(),
                        "): drop the token, and write again what is missing"));
  }
  if (Covers(position_, wanted)) return absl::OkStatus();
  return std::nullopt;
}

absl::Status AppliedPosition::Behind(const shardpb::Position& wanted) const {
  const std::string lag = position_.number() < wanted.number()
                              ? StrCat(wanted.number() - position_.number(), " changes")
                              : StrCat(wanted.epoch() - position_.epoch(), " epochs");
  return Error(absl::StatusCode::kUnavailable, Reason::kBehindToken,
               StrCat("shard ", store_.identity().shard, " is ", lag, " behind the consistency token (at ",
                      position_.epoch(), "/", position_.number(), ", wanted ", wanted.epoch(), "/", wanted.number(),
                      "): try again or wait longer"));
}

absl::Status AppliedPosition::WaitFor(const shardpb::ReadBarrier& barrier, const CallContext& context) const {
  const MutexLock lock(mutex_);
  if (const auto status = Judge(barrier.position())) return *status;
  const Clock::time_point end = EndOf(barrier.max_wait());
  if (end - Clock::now() <= kShortWait) return WaitLocked(barrier.position(), end, context);
  if (waiting_ >= waiting_max_) return Behind(barrier.position());
  ++waiting_;
  const absl::Status status = WaitLocked(barrier.position(), end, context);
  --waiting_;
  return status;
}

void AppliedPosition::WaitForChange(const shardpb::Position& position, Clock::time_point deadline) const {
  const MutexLock lock(mutex_);
  while (!closed_ && position_.epoch() == position.epoch() && position_.number() == position.number()) {
    if (!advanced_.WaitUntil(mutex_, deadline)) return;
  }
}

absl::Status AppliedPosition::WaitLocked(const shardpb::Position& wanted, Clock::time_point end,
                                         const CallContext& context) const {
  while (true) {
    if (const auto status = Judge(wanted)) return *status;
    RETRO_RETURN_IF_ERROR(context.Check());
    const Clock::time_point now = Clock::now();
    if (closed_ || now >= end) return Behind(wanted);
    advanced_.WaitUntil(mutex_, std::min(end, now + kCheckEvery));
  }
}

}  // namespace retro
