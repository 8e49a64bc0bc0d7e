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
  kGain,          // [width], of an RMSNorm
  kPositionBias,  // [heads * head_size], u or v of Transformer-XL
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
