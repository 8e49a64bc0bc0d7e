// What Megatron's two formats have in common: their layouts, their rule for the layers with CCA, and norms whose name
// depends on whether they were fused into the next matrix.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "generator_service/checkpoints/foreign_config.h"
#include "generator_service/checkpoints/foreign_layout.h"
#include "generator_service/checkpoints/tensor_source.h"
#include "generator_service/model/config.h"

namespace retro {

// From 6 (up to 15 layers) or 9 on, every third; layers from 1.
std::vector<int64_t> MegatronCcaLayers(int64_t layers);

// The names of one attention's matrices. Q, K and V of self-attention are interleaved by head: [heads, (q|k|v), head];
// K and V of cross-attention as well: [heads, (k|v), head].
struct MegatronAttentionNames {
  std::string fused;  // Q, K and V, or of cross-attention K and V
  std::string query;  // of cross-attention
  std::string output;
};
// By our leaf: query, key, value, output, and their biases. Nothing (an empty name) for other leaves.
ForeignWeight PlaceMegatronAttention(const MegatronAttentionNames& names, const std::string& leaf, int64_t heads);

// By our leaf: gate, up, down and their biases. A gated FFW's first matrix holds the gate's rows, then the others.
ForeignWeight PlaceMegatronFfw(const std::string& first, const std::string& second, const std::string& leaf,
                               bool gated);

// Rotary angles on a share of each head's dimensions, in the decoder's self-attention: "rotary_percent", "rotary_base".
void ReadMegatronRotary(ForeignConfig& fields, ModelConfig& config);

// Sizes of an encoder that is a decoder's twin: width, FFW and heads are the decoder's, and cross-attention is in its
// first layer only.
void SetMegatronEncoder(ModelConfig& config);
// Choices that both formats share, from the fields that they name alike.
void SetMegatronChoices(ModelConfig& config);

}  // namespace retro
