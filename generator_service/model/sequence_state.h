// What a Sequence keeps between two calls of Forward.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "generator_service/model/chunk_memory.h"
#include "generator_service/model/kv_cache.h"
#include "generator_service/model/sequence.h"

namespace retro {

struct SequenceState {
  SequenceState(const SequenceOptions& sequence_options, int64_t chunk_length, int64_t layers)
      : options(sequence_options), geometry(chunk_length, sequence_options.offset), caches(layers) {}

  SequenceOptions options;
  bool keep = true;  // false: one pass over a whole text (training), which leaves no caches behind
  ChunkGeometry geometry;
  int64_t position = 0;         // tokens seen
  std::vector<KvCache> caches;  // by decoder layer; rows at and past `position` are void
  at::Tensor pad;               // [tokens] bool: pad tokens; likewise void past `position`. Undefined: nobody asks.
  at::Tensor conditioning;      // [tokens of the running chunk, d], after ATTN of the first CCA layer; undefined: none
  ChunkMemoryPtr memory;        // of the last complete chunk
  std::vector<std::vector<float>> attention_mass;
};

}  // namespace retro
