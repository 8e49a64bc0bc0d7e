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
  // Of position tables: the dtype that they are made in from a matrix of any, and the one that they have then. Nothing:
  // the matrix's own.
  std::optional<at::ScalarType> table_sums;
  std::optional<at::ScalarType> tables;
};

// weights: as the table asks for, of any floating-point dtype, on the CPU. On the CPU matrices are packed, one after
// the other on all of the thread's workers; no more than one of them is held as fp32 if it is not. The result shares no
// memory with `weights`, except for the matrices that position tables are made from.
PlacedWeights PlaceWeights(const ModelConfig& config, const WeightMap& weights, const at::Device& device,
                           ModelNumbers numbers);

}  // namespace retro
