// E_u as CCA uses it: the keys and values of one chunk's encoded neighbours, for every CCA layer.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace retro {

struct ChunkMemory {
  // By CCA layer, in order: [heads, k * r, head], contiguous, in the number format of the position tables.
  std::vector<at::Tensor> keys;
  std::vector<at::Tensor> values;
  at::Tensor absent;                // [k * r] bool, true for pad; undefined without mask_pad
  std::vector<int64_t> given_rows;  // which of the chunk's given neighbours the k encoded ones are
  int64_t given_count = 0;          // neighbours given, those of nothing but pad included
};

using ChunkMemoryPtr = std::shared_ptr<const ChunkMemory>;  // null: the chunk has no neighbours

}  // namespace retro
