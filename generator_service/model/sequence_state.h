// What a Sequence keeps between two calls of Forward.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "generator_service/model/chunk_memory.h"
#include "generator_service/model/config.h"
#include "generator_service/model/context_window.h"
#include "generator_service/model/kv_cache.h"
#include "generator_service/model/sequence.h"

namespace retro {

struct SequenceState {
  SequenceState(const SequenceOptions& sequence_options, const ModelConfig& config)
      : options(sequence_options),
        geometry(config.chunk_length, sequence_options.offset),
        window(config.max_length, config.chunk_length),
        caches(config.layers) {}

  SequenceOptions options;
  bool keep = true;  // false: one pass over a whole text (training), which leaves no caches behind
  ChunkGeometry geometry;
  ContextWindow window;
  int64_t position = 0;         // tokens seen
  int64_t cached_from = 0;      // the first of them that the caches still hold
  std::vector<KvCache> caches;  // by decoder layer: tokens cached_from ... position - 1; rows past them are void
  at::Tensor pad;               // [tokens] bool: pad tokens; void past `position`. Undefined: nobody asks.
  at::Tensor conditioning;      // [tokens of the running chunk, d], after ATTN of the first CCA layer; undefined: none
  ChunkMemoryPtr memory;        // of the last complete chunk
  std::vector<std::vector<float>> attention_mass;
};

}  // namespace retro
