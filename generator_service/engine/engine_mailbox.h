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

  // At most `sessions_max` sessions are open at a time: submitted and not yet ended; no key has all (see FairShare).
  explicit EngineMailbox(int64_t sessions_max) : places_(sessions_max) {}

  // RESOURCE_EXHAUSTED or UNAVAILABLE as Engine::Submit. `succeeds_ended`: comes in the place of one that has ended and
  // is not yet counted so; then there is always room.
  absl::StatusOr<uint64_t> Submit(GenerationRequest request, std::shared_ptr<EventSink> sink, bool succeeds_ended);
  void Cancel(uint64_t session);
  void Answer(uint64_t lookup, absl::StatusOr<LookupAnswer> answer);
  void Drain(Clock::time_point deadline);
  void Stop();
  void Wake();

  // Everything noted since the last call. With `wait`, not before there is something or `until` has come.
  Mail Take(bool wait, std::optional<Clock::time_point> until);
  void CountEnded(const std::vector<uint64_t>& sessions);

 private:
  Mutex mutex_;
  CondVar changed_;
  Mail mail_ ABSL_GUARDED_BY(mutex_);
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  FairShare places_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::string> open_ ABSL_GUARDED_BY(mutex_);  // sessions, and whom they are for
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
};

}  // namespace retro
