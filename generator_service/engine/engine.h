// Runs many generations at once: one compute thread owns the model and every session; whoever submits, cancels or
// answers a look-up leaves a note and returns.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "generator_service/engine/engine_mailbox.h"
#include "generator_service/engine/scheduler.h"

namespace retro {

// One step, for metrics.
struct StepReport {
  Clock::duration time{};
  int64_t sessions = 0;      // that took part
  int64_t tokens = 0;        // fed to the model
  int64_t neighbours = 0;    // encoded
  int64_t running = 0;       // sessions with a place
  int64_t waiting = 0;       // for one
  int64_t cache_blocks = 0;  // that sessions with a place have a claim to
  absl::Status failure;      // not OK: nothing came of the step, and the fault is the model's or the machine's
};

struct EngineOptions {
  ModelFacts facts;
  SchedulerLimits limits;
  // Called by the compute thread before each step. Optional.
  std::function<void()> on_step_begin;
  // Called by the compute thread after each step and whenever it runs dry (then with no sessions and no time).
  // Optional.
  std::function<void(const StepReport&)> on_step;
};

// All methods: any thread.
class Engine {
 public:
  // `runner` is used by the compute thread alone. `source` must outlive this; its answers may come later still.
  Engine(const EngineOptions& options, std::unique_ptr<StepRunner> runner, NeighbourSource& source);
  // Ends what still runs, as Drain(now) does.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // The session's name. At once RESOURCE_EXHAUSTED with a delay if too many wait, UNAVAILABLE while draining. The sink
  // is called only after OK; it gets INVALID_ARGUMENT if the request needs more cache than there is.
  absl::StatusOr<uint64_t> Submit(GenerationRequest request, std::shared_ptr<EventSink> sink,
                                  SessionPlace place = SessionPlace::kNew);
  // Its sink gets CallerLeftError and its place is free before the next step. Unknown or ended sessions are ignored.
  void Cancel(uint64_t session);
  // A sink has room again.
  void Wake();
  // Takes no new sessions; what still runs at `deadline` is cut with FinishCause::kDrained.
  void Drain(Clock::time_point deadline);

 private:
  void Loop();
  bool Turn();
  void Deliver(EngineMailbox::Mail& mail, Clock::time_point now);
  std::optional<Clock::time_point> WakeTime() const;
  void Perform(SchedulerEffects effects);
  // `step`: all but what the scheduler knows.
  void Report(StepReport step) const;

  const EngineOptions options_;
  const std::unique_ptr<StepRunner> runner_;
  NeighbourSource& source_;
  const std::shared_ptr<EngineMailbox> mailbox_;  // shared with look-ups that are on their way

  // The compute thread alone.
  Scheduler scheduler_;
  std::optional<Clock::time_point> drain_at_;
  bool idle_ = true;  // nothing to compute until a note comes

  std::thread thread_;
};

}  // namespace retro
