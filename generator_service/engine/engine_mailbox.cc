#include "generator_service/engine/engine_mailbox.h"

#include <algorithm>

#include "common/base/error.h"

namespace retro {
namespace {

constexpr std::chrono::milliseconds kRetryAfter{1000};

}  // namespace

bool EngineMailbox::TakePlace(const std::string& key, SessionPlace place) {
  if (place == SessionPlace::kOfEnded) {
    places_.Take(key);  // there is room: the ended one is not yet counted so
    return true;
  }
  if (place == SessionPlace::kSpare && places_.taken() >= running_max_) return false;
  return places_.TryTake(key);
}

absl::StatusOr<uint64_t> EngineMailbox::Submit(GenerationRequest request, std::shared_ptr<EventSink> sink,
                                               SessionPlace place) {
  MutexLock lock(mutex_);
  if (mail_.stopping || mail_.drain_at.has_value())
    return Error(absl::StatusCode::kUnavailable, Reason::kShuttingDown,
                 "this server is shutting down; ask another one");
  if (!TakePlace(request.key, place)) return QueueFullError("the queue of generations", kRetryAfter);
  const uint64_t id = next_id_++;
  open_.emplace(id, request.key);
  mail_.submissions.push_back({id, std::move(request), std::move(sink)});
  woken_ = true;
  changed_.NotifyOne();
  return id;
}

void EngineMailbox::Cancel(uint64_t session) {
  MutexLock lock(mutex_);
  mail_.cancels.push_back(session);
  woken_ = true;
  changed_.NotifyOne();
}

void EngineMailbox::Answer(uint64_t lookup, absl::StatusOr<LookupAnswer> answer) {
  MutexLock lock(mutex_);
  mail_.answers.emplace_back(lookup, std::move(answer));
  woken_ = true;
  changed_.NotifyOne();
}

void EngineMailbox::Drain(Clock::time_point deadline) {
  MutexLock lock(mutex_);
  mail_.drain_at = std::min(deadline, mail_.drain_at.value_or(deadline));
  woken_ = true;
  changed_.NotifyOne();
}

void EngineMailbox::Stop() {
  MutexLock lock(mutex_);
  mail_.stopping = true;
  woken_ = true;
  changed_.NotifyOne();
}

void EngineMailbox::Wake() {
  MutexLock lock(mutex_);
  woken_ = true;
  changed_.NotifyOne();
}

EngineMailbox::Mail EngineMailbox::Take(bool wait, std::optional<Clock::time_point> until) {
  MutexLock lock(mutex_);
  while (wait && !woken_) {
    if (!until.has_value()) {
      changed_.Wait(mutex_);
    } else if (!changed_.WaitUntil(mutex_, *until)) {
      break;
    }
  }
  woken_ = false;
  Mail taken = std::move(mail_);
  mail_ = {};
  mail_.drain_at = taken.drain_at;
  mail_.stopping = taken.stopping;
  return taken;
}

void EngineMailbox::CountEnded(const std::vector<uint64_t>& sessions) {
  MutexLock lock(mutex_);
  for (const uint64_t session : sessions) {
    const auto open = open_.find(session);
    places_.Release(open->second);
    open_.erase(open);
  }
}

}  // namespace retro
