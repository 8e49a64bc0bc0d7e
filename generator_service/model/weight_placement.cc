#include "generator_service/model/weight_placement.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <exception>
#include <utility>
#include <vector>

#include "common/base/sync.h"
#include "generator_service/model/compute_team.h"
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

using PackedMap = std::map<std::string, std::shared_ptr<const PackedMatrix>>;

// The workers take one matrix after the other, for they differ in size.
PackedMap PackMatrices(const std::vector<std::pair<std::string, at::Tensor>>& matrices, MatrixFormat format) {
  std::vector<std::shared_ptr<const PackedMatrix>> packed(matrices.size());
  std::atomic<size_t> next = 0;
  Mutex mutex;
  std::exception_ptr error;
  ShareOut(at::get_num_threads(), [&](int64_t, int64_t) {
    try {
      for (size_t i = next++; i < matrices.size(); i = next++) {
        const at::Tensor& weight = matrices[i].second;
        const std::span<const float> values(weight.const_data_ptr<float>(), weight.numel());
        packed[i] = std::make_shared<PackedMatrix>(values, weight.size(0), weight.size(1), format);
      }
    } catch (...) {
      const MutexLock lock(mutex);
      error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);
  PackedMap map;
  for (size_t i = 0; i < matrices.size(); ++i) map.emplace(matrices[i].first, std::move(packed[i]));
  return map;
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
  placed.tables = TableType(numbers);
  std::vector<std::pair<std::string, at::Tensor>> matrices;
  for (const WeightSpec& spec : WeightTable(config)) {
    const at::Tensor& weight = weights.at(spec.name);
    const bool multiplied = IsMultiplied(spec);
    if (multiplied && format) {
      matrices.emplace_back(spec.name, weight.contiguous());
    } else if (MakesTable(spec)) {
      placed.tensors.emplace(spec.name, weight.to(device));
    } else {
      const at::ScalarType type = multiplied && numbers == ModelNumbers::kBf16 ? at::kBFloat16 : at::kFloat;
      placed.tensors.emplace(spec.name, weight.to(device, type, /*non_blocking=*/false, /*copy=*/true));
    }
  }
  if (format) placed.packed = PackMatrices(matrices, *format);
  return placed;
}

}  // namespace retro
