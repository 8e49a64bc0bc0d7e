// The one table of a model's weights: loader, checker, initialiser, importers and parameter count all go by it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "generator_service/model/config.h"

namespace retro {

enum class WeightKind {
  kEmbedding,     // [V, width]
  kReadout,       // [V, width]
  kMatrix,        // [out, in]
  kGain,          // [width], of a norm
  kBias,          // [out], of a matrix or a norm
  kPositionBias,  // [heads * head_size], u or v of Transformer-XL
  kBuckets,       // [buckets, heads], a bias for each clamped distance
  kPositions,     // [n, width], a learned row for each position
  kNullKey,       // [heads * head_size], CCA's extra key or its value
};

struct WeightSpec {
  std::string name;  // "decoder.3.cca.query"; layers from 1
  std::vector<int64_t> shape;
  WeightKind kind;

  int64_t element_count() const;
};

// In the order of the forward pass. Tied and shared weights occur once.
std::vector<WeightSpec> WeightTable(const ModelConfig& config);

// As the paper counts (its table 2): the weight matrices, embeddings and readout left out.
int64_t CountMatrixParameters(const std::vector<WeightSpec>& table);
// Everything that is stored.
int64_t CountParameters(const std::vector<WeightSpec>& table);

}  // namespace retro
