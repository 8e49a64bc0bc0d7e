#include "generator_service/checkpoints/random_init.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <cstring>

#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/torch/torch_status.h"
#include "generator_service/model/weight_table.h"
#include "generator_service/model/weights.h"

namespace retro {
namespace {

constexpr double kEmbeddingDeviation = 0.02;

uint64_t SeedOf(uint64_t seed, const std::string& name) {
  const std::string hash = Sha256Bytes(StrCat(seed, "/", name));
  uint64_t value = 0;
  std::memcpy(&value, hash.data(), sizeof value);
  return value;
}

bool WritesToResidual(const std::string& name) { return name.ends_with(".output") || name.ends_with(".down"); }

at::Tensor RandomWeight(const ModelConfig& config, const WeightSpec& spec, uint64_t seed) {
  if (spec.kind == WeightKind::kGain) return at::ones(spec.shape);
  if (spec.kind == WeightKind::kPositionBias || spec.kind == WeightKind::kBias) return at::zeros(spec.shape);
  double deviation = kEmbeddingDeviation;
  if (spec.kind == WeightKind::kMatrix) deviation = 1.0 / std::sqrt(static_cast<double>(spec.shape[1]));
  if (WritesToResidual(spec.name)) deviation /= std::sqrt(2.0 * static_cast<double>(config.layers));
  const at::Generator generator = at::detail::createCPUGenerator(SeedOf(seed, spec.name));
  return at::randn(spec.shape, generator, at::TensorOptions().dtype(at::kFloat)).mul_(deviation);
}

}  // namespace

absl::StatusOr<std::map<std::string, at::Tensor>> RandomWeights(const ModelConfig& config, uint64_t seed) {
  return CatchTorch([&]() -> absl::StatusOr<WeightMap> {
    WeightMap weights;
    for (const WeightSpec& spec : WeightTable(config)) weights.emplace(spec.name, RandomWeight(config, spec, seed));
    return weights;
  });
}

}  // namespace retro
