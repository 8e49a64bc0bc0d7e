// The scheduler with everything around it that an engine would be, one turn at a time, under a clock that the test
// moves. Every turn checks that the bounds are kept.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "generator_service/engine/model_runner.h"
#include "generator_service/engine/scheduler.h"
#include "tests/fake_neighbours.h"

namespace retro {

inline constexpr SchedulerLimits kTightLimits = {.sessions_max = 3,
                                                 .waiting_max = 2,
                                                 .cache_blocks_max = 20,
                                                 .prefill_tokens_max = 7,
                                                 .prefill_tokens_shared_max = 3,
                                                 .encoder_rows_max = 3,
                                                 .stall_ms_max = std::chrono::milliseconds(1000)};

// The model's runner, watched: which sequences have caches.
class WatchedRunner : public StepRunner {
 public:
  // `decoder` may be null.
  WatchedRunner(const RetroModel& model, std::unique_ptr<FixedDecoder> decoder)
      : decoder_(decoder.get()), runner_(model, 1, std::move(decoder)) {}
  std::vector<absl::StatusOr<StepOutput>> Step(std::span<const StepItem> items) override;
  void End(uint64_t sequence) override;
  const std::set<uint64_t>& live() const { return live_; }
  const FixedDecoder* decoder() const { return decoder_; }

 private:
  const FixedDecoder* decoder_;  // the runner's
  ModelRunner runner_;
  std::set<uint64_t> live_;
};

class SchedulerHarness {
 public:
  // `decoder`: what the runner decodes with where it can; may be null.
  SchedulerHarness(const RetroModel& model, const Tokenizer& tokenizer, const SchedulerLimits& limits = kTightLimits,
                   std::unique_ptr<FixedDecoder> decoder = nullptr)
      : limits_(limits), runner_(model, std::move(decoder)), scheduler_(TinyFacts(model, tokenizer), limits) {}

  // A millisecond passes and a step is made, if there is one to make.
  void Turn();
  // From now on a step takes this time, and so much more for each of its tokens.
  void SetStepTime(Clock::duration step, Clock::duration token) {
    step_time_ = step;
    token_time_ = token;
  }
  // Answers one of lookups() from the made-up store, with its failures if `failures`.
  void Answer(size_t which, bool failures);

  absl::Status Add(uint64_t id, GenerationRequest request, std::shared_ptr<EventSink> sink) {
    return scheduler_.Add(id, std::move(request), std::move(sink), now_);
  }
  Scheduler& scheduler() { return scheduler_; }
  const WatchedRunner& runner() const { return runner_; }
  std::vector<LookupRequest>& lookups() { return lookups_; }
  const std::vector<uint64_t>& cancelled_lookups() const { return cancelled_lookups_; }
  // How many look-ups came out together, each time that some did.
  const std::vector<size_t>& handed_out() const { return handed_out_; }
  // Of the last turn's step.
  int64_t last_tokens() const { return last_tokens_; }
  size_t last_items() const { return last_items_; }
  int64_t last_rows() const { return last_rows_; }
  Clock::time_point& now() { return now_; }

 private:
  void Perform(SchedulerEffects effects);
  void CheckBounds(const std::vector<StepItem>& items);

  const SchedulerLimits limits_;
  WatchedRunner runner_;
  Scheduler scheduler_;
  Clock::time_point now_{std::chrono::hours(1)};
  std::vector<LookupRequest> lookups_;
  std::vector<uint64_t> cancelled_lookups_;
  std::vector<size_t> handed_out_;
  Clock::duration step_time_{};
  Clock::duration token_time_{};
  int64_t last_tokens_ = 0;
  size_t last_items_ = 0;
  int64_t last_rows_ = 0;
};

}  // namespace retro
