// Transformer-XL's self-attention for single new tokens on the CPU, straight from the pages of their caches. What
// RelativeAttention does for many queries at once would here cost more than the work: a copy of all pages.
#pragma once

#include <cstdint>
#include <span>

#include "generator_service/model/kv_cache.h"
#include "generator_service/model/weights.h"

namespace retro {

// The newest token of one sequence.
struct PagedQuery {
  const float* query = nullptr;    // [heads, head]
  const KvCache* cache = nullptr;  // of the sequence; the token's own key and value are in it
  int64_t keys = 0;                // S: places 0 ... S-1, the last one the token's own
  float* attended = nullptr;       // [heads, head]
};

// Whether PagedAttention does what these weights ask for.
bool HasPagedAttention(const AttentionWeights& weights, const KvPool& pool);

// Each query by itself: a sequence's result does not depend on the others. Heads are shared out over the calling
// thread's workers.
void PagedAttention(const AttentionWeights& weights, int64_t layer, std::span<const PagedQuery> queries);

}  // namespace retro
