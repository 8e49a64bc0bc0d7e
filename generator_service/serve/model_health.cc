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

void ModelHealth::OnStep(const StepReport& step) {
  if (step.sessions == 0) return;
  MutexLock lock(mutex_);
  const bool was_well = failed_steps_ < kFailedStepsMax;
  failed_steps_ = step.failure.ok() ? 0 : failed_steps_ + 1;
  const bool is_well = failed_steps_ < kFailedStepsMax;
  if (is_well == was_well) return;
  if (is_well) {
    LogEvent(spdlog::level::info, "model_recovered", {});
  } else {
    LogEvent(spdlog::level::err, "model_fails", {{"reason", std::string(MessageOf(step.failure))}});
  }
  if (on_change_) on_change_(is_well);
}

}  // namespace retro
