// Chunked cross-attention (paper section 2.4, eqs. 3 and 6, Listing 1).
//
//   chunks        |      C_1      |      C_2      |      C_3      |      m = 4
//   tokens         0   1   2   3   4   5   6   7   8   9  10  11
//   attend to      -   -   -  E_1 E_1 E_1 E_1 E_2 E_2 E_2 E_2 E_3
//   place i                    0   1   2   3   0   1   2   3   0
//
// A token attends to all k * r encoded neighbour tokens of one chunk in one softmax, with the distance i - i' + m - 1
// to the token at place i' of a neighbour (other position schemes: see cca.cc). Tokens before the last one of C_1, and
// those whose chunk has no neighbours, pass unchanged.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "generator_service/model/chunk_memory.h"
#include "generator_service/model/config.h"
#include "generator_service/model/weights.h"

namespace retro {

// Consecutive rows of a batch that attend to one chunk's neighbours.
struct AttendingSpan {
  int64_t first_row = 0;
  int64_t rows = 0;         // T
  int64_t first_place = 0;  // i of the first row
  ChunkMemoryPtr memory;
  double gate = 1.0;   // scales what CCA adds
  bool apart = false;  // not computed together with others
  bool want_mass = false;
  at::Tensor mass;  // [T, k]: attention mass by neighbour, mean over heads, summed over the CCA layers so far
};

// What CCA adds to h [N, d]: the same shape, exactly 0 in the rows of no span. `spans` rise and do not overlap; CCA
// layers are numbered from 0 by `cca_index`. Adds to the spans' mass where wanted.
at::Tensor ChunkedCrossAttention(const AttentionWeights& weights, const ModelConfig& config, int64_t cca_index,
                                 const at::Tensor& h, std::span<AttendingSpan> spans);

}  // namespace retro
