#include "generator_service/serve/model_health.h"

#include <string>
#include <utility>

#include "common/base/strings.h"
#include "common/rpc/log.h"

namespace retro {

void ModelHealth::Watch(std::function<void(bool well)> on_change) {
  MutexLock lock(mutex_);
  on_change_ = std::move(on_change);
}

void ModelHealth::OnStepBegin() {
  MutexLock lock(mutex_);
  step_begun_ = Clock::now();
}

void ModelHealth::OnStep(const StepReport& step) {
  if (step.sessions == 0) return;
  MutexLock lock(mutex_);
  const bool was_well = IsWell();
  step_begun_.reset();
  hangs_ = false;
  failed_steps_ = step.failure.ok() ? 0 : failed_steps_ + 1;
  if (failed_steps_ == kFailedStepsMax) {
    LogEvent(spdlog::level::err, "model_fails", {{"reason", std::string(MessageOf(step.failure))}});
  }
  Tell(was_well);
}

void ModelHealth::Look() {
  MutexLock lock(mutex_);
  if (hangs_ || !step_begun_.has_value() || Clock::now() - *step_begun_ < step_max_) return;
  const bool was_well = IsWell();
  hangs_ = true;
  LogEvent(spdlog::level::err, "model_hangs", {{"step_ms", std::to_string(step_max_.count())}});
  Tell(was_well);
}

void ModelHealth::Tell(bool was_well) {
  const bool is_well = IsWell();
  if (is_well == was_well) return;
  if (is_well) LogEvent(spdlog::level::info, "model_recovered", {});
  if (on_change_) on_change_(is_well);
}

}  // namespace retro
