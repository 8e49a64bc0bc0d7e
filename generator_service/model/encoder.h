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
  at::Tensor conditioning;         // [C, m, d]; the rows of a chunk shorter than m stand at the end
  at::Tensor conditioning_absent;  // [C, m] bool: rows before a short chunk. Undefined if all chunks are full.
};

// E: [N, r, d'].
at::Tensor EncodeNeighbours(const EncoderWeights& weights, const ModelConfig& config, const EncoderInput& input);

}  // namespace retro
