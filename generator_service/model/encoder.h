// The neighbour encoder (paper section 2.4 and B.1; ENCODER of Algorithm 1): every neighbour by itself, bidirectional,
// conditioned on the decoder's activations of the chunk that it was found for.
#pragma once

#include <ATen/ATen.h>

#include "generator_service/model/config.h"
#include "generator_service/model/weights.h"

namespace retro {

// N neighbours of C chunks.
struct EncoderInput {
  at::Tensor neighbours;           // [N, r] token ids
  at::Tensor chunk_of;             // [N]: 0 ... C-1
  at::Tensor conditioning;         // [C, m, d]; zero rows where a chunk is shorter than m
  at::Tensor conditioning_absent;  // [C, m] bool: rows that are masked as pad is. Undefined: none.
};

// E: [N, r, EncodedWidth].
at::Tensor EncodeNeighbours(const EncoderWeights& weights, const ModelConfig& config, const EncoderInput& input);

}  // namespace retro
