// What a model keeps of its weights where it is going to run.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "generator_service/model/config.h"
#include "generator_service/model/numbers.h"
#include "generator_service/model/packed_matrix.h"

namespace retro {

// By the names of the weight table.
using WeightMap = std::map<std::string, at::Tensor>;

struct PlacedWeights {
  // All but the packed ones. Matrices that are not packed are in the numbers' dtype, everything else in fp32.
  WeightMap tensors;
  std::map<std::string, std::shared_ptr<const PackedMatrix>> packed;
  std::optional<at::ScalarType> tables;  // dtype of position tables; nothing: as the matrix that they are made from
};

// weights: as the table asks for, fp32, on the CPU. On the CPU matrices are packed, one after the other on all of the
// thread's workers; the result shares no memory with `weights`, except for the matrices that position tables are made
// from.
PlacedWeights PlaceWeights(const ModelConfig& config, const WeightMap& weights, const at::Device& device,
                           ModelNumbers numbers);

}  // namespace retro
