// The decoder with retrieval: Algorithm 1 of the paper, over pieces of several sequences at once. A piece may begin
// anywhere; what lies before it is in its sequence's caches.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
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

// Where a sequence will stand once its piece counts.
struct SequenceMove {
  SequenceState* state = nullptr;
  int64_t rows = 0;         // that it moves on by
  at::Tensor conditioning;  // as in SequenceState
  ChunkMemoryPtr memory;
  std::optional<std::vector<std::vector<float>>> attention_mass;  // where it was wanted
};

struct DecoderPass {
  at::Tensor h;  // [N, d]: after the last layer, before the final norm
  std::vector<SequenceMove> moves;
};

// tokens: [N] ids; `pieces` tile the N rows. The states stay where they are, with their caches filled ahead: pass the
// moves to Advance once everything else that is wanted of the pieces has been computed, or else run them again.
DecoderPass RunDecoder(const ModelWeights& weights, const ModelConfig& config, const at::Tensor& tokens,
                       std::span<const DecoderPiece> pieces);

// Moves the states past their pieces.
void Advance(std::span<SequenceMove> moves) noexcept;

// The final norm and READ: [..., d] -> [..., V].
at::Tensor ReadOut(const ModelWeights& weights, const ModelConfig& config, const at::Tensor& h);

}  // namespace retro
