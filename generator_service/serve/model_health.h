// Whether the model still computes, from its steps: a device that is beyond repair fails every one of them from then
// on, or never ends one, and nobody should be sent there any more. What single generations fail of, such as logits that
// are no numbers, is none of it.
#pragma once

#include <chrono>
#include <functional>
#include <optional>

#include "common/base/sync.h"
#include "generator_service/engine/engine.h"

namespace retro {

// Any thread.
class ModelHealth {
 public:
  // Steps in a row of which nothing came, until it counts as ill. One that succeeds makes it well again.
  static constexpr int kFailedStepsMax = 3;

  // A step that is older than `step_max` hangs: the model is ill until it ends.
  explicit ModelHealth(std::chrono::milliseconds step_max) : step_max_(step_max) {}

  // Is called when that changes, by whoever calls OnStep or Look; null: nobody is any more. The last call has returned
  // then.
  void Watch(std::function<void(bool well)> on_change);

  void OnStepBegin();
  void OnStep(const StepReport& step);
  // To be called again and again: a step that hangs does not tell of itself.
  void Look();

 private:
  bool IsWell() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return failed_steps_ < kFailedStepsMax && !hangs_; }
  void Tell(bool was_well) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::chrono::milliseconds step_max_;
  Mutex mutex_;
  std::function<void(bool well)> on_change_ ABSL_GUARDED_BY(mutex_);
  int failed_steps_ ABSL_GUARDED_BY(mutex_) = 0;                         // in a row
  std::optional<Clock::time_point> step_begun_ ABSL_GUARDED_BY(mutex_);  // if one is under way
  bool hangs_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace retro
