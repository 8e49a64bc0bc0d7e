// What a Sequence keeps between two calls of Forward.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "generator_service/model/chunk_memory.h"
#include "generator_service/model/config.h"
#include "generator_service/model/context_window.h"
#include "generator_service/model/kv_cache.h"
#include "generator_service/model/sequence.h"

namespace retro {

struct SequenceState {
  // pool: where the caches live; null for one pass over a whole text (training), which leaves none behind.
  SequenceState(const SequenceOptions& sequence_options, const ModelConfig& config, std::shared_ptr<KvPool> pool)
      : options(sequence_options),
        geometry(config.chunk_length, sequence_options.offset),
        window(config.max_length, config.chunk_length) {
    if (pool != nullptr) cache.emplace(std::move(pool));
  }

  // Tokens whose keys and values are in the cache.
  int64_t held() const { return position - cached_from; }

  SequenceOptions options;
  ChunkGeometry geometry;
  ContextWindow window;
  int64_t position = 0;          // tokens seen
  int64_t cached_from = 0;       // the first of them that the cache still holds; a multiple of m
  std::optional<KvCache> cache;  // places from there on; those at and past `position` are void
  at::Tensor pad;                // [tokens] bool: pad tokens; likewise void past `position`. Undefined: nobody asks.
  at::Tensor conditioning;       // [tokens of the running chunk, d], after ATTN of the first CCA layer; undefined: none
  ChunkMemoryPtr memory;         // of the last complete chunk
  std::vector<std::vector<float>> attention_mass;
};

}  // namespace retro
