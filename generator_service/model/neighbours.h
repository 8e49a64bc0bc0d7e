// RET(C_u): what the retriever found for one chunk, as the model takes it.
#pragma once

#include <cstdint>
#include <vector>

#include "common/tokenizer/tokenizer.h"

namespace retro {

// k where nothing says with how many neighbours a chunk a model was trained: the paper's.
inline constexpr int64_t kTrainedNeighbours = 2;

// `count` neighbours of r = config.neighbour_length tokens each, row-major [count, r]: the neighbour N padded on the
// right to m tokens, then its continuation F padded on the right to m. count 0: the chunk has no neighbours, and CCA is
// the identity over its whole span. Under mask_pad a neighbour of nothing but pad does not exist.
struct ChunkNeighbours {
  int64_t count = 0;
  std::vector<TokenId> tokens;
};

}  // namespace retro
