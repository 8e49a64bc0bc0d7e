// Chunked cross attention of single tokens on the CPU, straight from the memories of the chunks that they attend to.
// What RelativeAttention does for many queries at once would here cost more than the work: a copy of all memories.
#pragma once

#include <cstdint>
#include <span>

#include "generator_service/model/chunk_memory.h"
#include "generator_service/model/weights.h"

namespace retro {

// One token.
struct NeighbourQuery {
  const float* query = nullptr;         // [heads, head]
  const ChunkMemory* memory = nullptr;  // with at least one key that is not absent
  int64_t place = 0;                    // i of eq. 6
  float* attended = nullptr;            // [heads, head]
  float* mass = nullptr;                // [heads, k]: each head's share on each neighbour; null: not wanted
};

// Whether NeighbourAttention does what these weights ask for.
bool HasNeighbourAttention(const AttentionWeights& weights);

// Each query by itself: a token's result does not depend on the others. Heads are shared out over the calling thread's
// workers. CCA layers are numbered from 0 by `cca_index`; `neighbour_length` is r.
void NeighbourAttention(const AttentionWeights& weights, int64_t cca_index, int64_t neighbour_length,
                        std::span<const NeighbourQuery> queries);

}  // namespace retro
