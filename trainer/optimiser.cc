#include "trainer/optimiser.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "generator_service/model/weight_table.h"

namespace retro {
namespace {

constexpr double kNormFloor = 1e-6;

// The gradient that each weight holds; zeros where no loss reached it.
std::vector<at::Tensor> TakeGradients(const std::vector<at::Tensor>& weights) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& weight : weights) {
    at::Tensor& held = weight.mutable_grad();
    gradients.push_back(held.defined() ? held : at::zeros_like(weight));
    held = at::Tensor();
  }
  return gradients;
}

}  // namespace

double LearningRate(const OptimiserOptions& options, int64_t step) {
  if (step < options.warmup_steps) {
    return options.learning_rate * static_cast<double>(step + 1) / static_cast<double>(options.warmup_steps);
  }
  const auto falling = static_cast<double>(std::max<int64_t>(options.steps - options.warmup_steps, 1));
  const double way = std::min(1.0, static_cast<double>(step - options.warmup_steps) / falling);
  const double share = options.final_share + (1 - options.final_share) * (1 + std::cos(std::numbers::pi * way)) / 2;
  return options.learning_rate * share;
}

Optimiser::Optimiser(const ModelConfig& config, const WeightMap& weights, const OptimiserOptions& options)
    : options_(options) {
  groups_[0].weight_decay = 0;
  groups_[1].weight_decay = options.weight_decay;
  for (const WeightSpec& spec : WeightTable(config)) {
    const at::Tensor& weight = weights.at(spec.name);
    if (!weight.requires_grad()) continue;
    Group& group = groups_[spec.kind == WeightKind::kMatrix ? 1 : 0];
    group.weights.push_back(weight);
    group.means.push_back(means_.emplace(spec.name, at::zeros_like(weight).detach()).first->second);
    group.variances.push_back(variances_.emplace(spec.name, at::zeros_like(weight).detach()).first->second);
  }
  steps_taken_ = at::zeros({}, weights.begin()->second.options().requires_grad(false));
}

at::Tensor Optimiser::Step(int64_t step) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients[2] = {TakeGradients(groups_[0].weights), TakeGradients(groups_[1].weights)};
  std::vector<at::Tensor> norms;
  for (const auto& group : gradients) {
    if (group.empty()) continue;
    for (const at::Tensor& norm : at::_foreach_norm(group)) norms.push_back(norm);
  }
  const at::Tensor norm = at::stack(norms).norm();
  const at::Tensor scale = (options_.clip_norm / (norm + kNormFloor)).clamp_max(1.0);
  const at::Tensor broken = norm.isfinite().logical_not().to(at::kFloat);
  steps_taken_.add_(1 - broken);
  for (size_t g = 0; g < 2; ++g) {
    if (gradients[g].empty()) continue;
    at::_foreach_mul_(gradients[g], scale);
    const std::vector<at::Tensor> steps(gradients[g].size(), steps_taken_);
    at::_fused_adamw_(groups_[g].weights, gradients[g], groups_[g].means, groups_[g].variances, {}, steps,
                      LearningRate(options_, step), options_.beta1, options_.beta2, groups_[g].weight_decay,
                      options_.epsilon, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, broken);
  }
  return norm;
}

}  // namespace retro
