#include "generator_service/model/weight_placement.h"

#include <span>

#include "generator_service/model/weight_table.h"

namespace retro {
namespace {

// The matrices that rows are multiplied with: all but those of the position tables, which the tables take the place of.
bool IsMultiplied(const WeightSpec& spec) {
  switch (spec.kind) {
    case WeightKind::kEmbedding:
    case WeightKind::kReadout:
      return true;
    case WeightKind::kMatrix:
      return !spec.name.ends_with(".position");
    default:
      return false;
  }
}

bool MakesTable(const WeightSpec& spec) { return spec.kind == WeightKind::kMatrix && !IsMultiplied(spec); }

std::shared_ptr<const PackedMatrix> Pack(const at::Tensor& weight, MatrixFormat format) {
  const at::Tensor plain = weight.to(at::kFloat).contiguous();
  const std::span<const float> values(plain.const_data_ptr<float>(), plain.numel());
  return std::make_shared<PackedMatrix>(values, plain.size(0), plain.size(1), format);
}

std::optional<at::ScalarType> TableType(ModelNumbers numbers) {
  if (numbers == ModelNumbers::kFp32) return std::nullopt;
  return numbers == ModelNumbers::kBf16 ? at::kBFloat16 : at::kHalf;
}

}  // namespace

PlacedWeights PlaceWeights(const ModelConfig& config, const WeightMap& weights, const at::Device& device,
                           ModelNumbers numbers) {
  const std::optional<MatrixFormat> format = device.is_cpu() ? PackedFormat(numbers) : std::nullopt;
  PlacedWeights placed;
  placed.table_sums = at::kFloat;
  placed.tables = TableType(numbers);
  for (const WeightSpec& spec : WeightTable(config)) {
    const at::Tensor& weight = weights.at(spec.name);
    const bool multiplied = IsMultiplied(spec);
    if (multiplied && format) {
      placed.packed.emplace(spec.name, Pack(weight, *format));
    } else if (MakesTable(spec)) {
      placed.tensors.emplace(spec.name, weight.to(device));
    } else {
      const at::ScalarType type = multiplied && numbers == ModelNumbers::kBf16 ? at::kBFloat16 : at::kFloat;
      placed.tensors.emplace(spec.name, weight.to(device, type, /*non_blocking=*/false, /*copy=*/true));
    }
  }
  return placed;
}

}  // namespace retro
