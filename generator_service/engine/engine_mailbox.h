// Notes to the engine's compute thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/fair_share.h"
#include "common/base/sync.h"
#include "generator_service/engine/generation.h"

namespace retro {

// What a session that is submitted takes its place of.
enum class SessionPlace {
  kNew,      // those that are free
  kOfEnded,  // within the OnFinish of another: its place, so that work of several sessions is not refused half-way
  kSpare,    // those that are free, and only as long as no session waits for a place (one may for room in the cache)
};

class EngineMailbox {
 public:
  struct Submission {
    uint64_t id = 0;
    GenerationRequest request;
    std::shared_ptr<EventSink> sink;
  };
  struct Mail {
    std::vector<Submission> submissions;
    std::vector<uint64_t> cancels;
    std::vector<std::pair<uint64_t, absl::StatusOr<LookupAnswer>>> answers;
    std::optional<Clock::time_point> drain_at;
    bool stopping = false;
  };

  // So many sessions may run at once and wait for that. The sum is open at a time: submitted and not yet ended; no key
  // has all (see FairShare).
  EngineMailbox(int64_t running_max, int64_t waiting_max)
      : running_max_(running_max), places_(running_max + waiting_max) {}

  // RESOURCE_EXHAUSTED or UNAVAILABLE as Engine::Submit.
  absl::StatusOr<uint64_t> Submit(GenerationRequest request, std::shared_ptr<EventSink> sink, SessionPlace place);
  void Cancel(uint64_t session);
  void Answer(uint64_t lookup, absl::StatusOr<LookupAnswer> answer);
  void Drain(Clock::time_point deadline);
  void Stop();
  void Wake();

  // Everything noted since the last call. With `wait`, not before there is something or `until` has come.
  Mail Take(bool wait, std::optional<Clock::time_point> until);
  void CountEnded(const std::vector<uint64_t>& sessions);

 private:
  bool TakePlace(const std::string& key, SessionPlace place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t running_max_;
  Mutex mutex_;
  CondVar changed_;
  Mail mail_ ABSL_GUARDED_BY(mutex_);
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  FairShare places_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::string> open_ ABSL_GUARDED_BY(mutex_);  // sessions, and whom they are for
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
};

}  // namespace retro
