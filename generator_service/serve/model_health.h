// Whether the model still computes, from its steps: a device that is beyond repair fails every one of them from then
// on, and nobody should be sent there any more. What single generations fail of, such as logits that are no numbers, is
// none of it.
#pragma once

#include <functional>

#include "common/base/sync.h"
#include "generator_service/engine/engine.h"

namespace retro {

// Any thread.
class ModelHealth {
 public:
  // Steps in a row of which nothing came, until it counts as ill. One that succeeds makes it well again.
  static constexpr int kFailedStepsMax = 3;

  // Is called when that changes, by whoever calls OnStep; null: nobody is any more. The last call has returned then.
  void Watch(std::function<void(bool well)> on_change);

  void OnStep(const StepReport& step);

 private:
  Mutex mutex_;
  std::function<void(bool well)> on_change_ ABSL_GUARDED_BY(mutex_);
  int failed_steps_ ABSL_GUARDED_BY(mutex_) = 0;  // in a row
};

}  // namespace retro
