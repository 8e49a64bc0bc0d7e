// The decoder with retrieval: Algorithm 1 of the paper, over pieces of several sequences at once. A piece may begin
// anywhere; what lies before it is in its sequence's caches.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "generator_service/model/cca.h"
#include "generator_service/model/config.h"
#include "generator_service/model/neighbours.h"
#include "generator_service/model/sequence_state.h"
#include "generator_service/model/weights.h"

namespace retro {

// Intermediate values of one piece, for comparison with references.
struct Trace {
  at::Tensor conditioning;  // [T, d]: H after ATTN of the first CCA layer
  at::Tensor
      encoded;      // E [C, k, r, d'] of the completed chunks, 0 where a neighbour does not exist; all chunks of one k
  at::Tensor last;  // [T, d]: H after the last layer, before the final norm
};

// The next tokens of one sequence, as rows of a batch.
struct DecoderPiece {
  SequenceState* state = nullptr;
  int64_t first_row = 0;
  int64_t rows = 0;
  std::span<const ChunkNeighbours> neighbours;  // of the chunks that the rows complete; empty without retrieval
  bool want_mass = false;
  Trace* trace = nullptr;
};

// tokens: [N] ids; `pieces` tile the N rows. Returns H after the last layer, before the final norm: [N, d]. The states
// move on past the pieces once everything has been computed: an exception leaves them where they were.
at::Tensor RunDecoder(const ModelWeights& weights, const ModelConfig& config, const at::Tensor& tokens,
                      std::span<const DecoderPiece> pieces);

// The final norm and READ: [..., d] -> [..., V].
at::Tensor ReadOut(const ModelWeights& weights, const ModelConfig& config, const at::Tensor& h);

}  // namespace retro
