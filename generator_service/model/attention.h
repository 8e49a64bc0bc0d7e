// Multi-head attention with Transformer-XL's relative positions (Dai et al. 2019; RETRO paper, B.1):
//   logit(t, s) = ((q_t + u) . k_s + (q_t + v) . (W_R sinusoid(dist))) / sqrt(head),  dist = position of t - position
//   of s.
// dist takes few values, so W_R sinusoid(dist) is a table, one row a distance, made once for a model.
//
// Letters: B batch, H heads, T queries, S keys, c head size. Nothing here changes a tensor in place: autograd works
// throughout.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "generator_service/model/weights.h"

namespace retro {

// Rows for the distances `largest`, largest - 1, ... (`count` of them): [count, width], sines then cosines, base 10000.
at::Tensor SinusoidRows(int64_t largest, int64_t count, int64_t width, const at::TensorOptions& options);

// W_R sinusoid(dist) for the distances `largest`, largest - 1, ...: [H, count, c]. `matrix` is W_R [H * c, width].
at::Tensor PositionTable(const at::Tensor& matrix, int64_t largest, int64_t count, int64_t heads);

// Splits the heads: [..., T, H * c] -> [..., H, T, c].
at::Tensor SplitHeads(const at::Tensor& rows, int64_t heads);
// Joins them: [..., H, T, c] -> [..., T, H * c].
at::Tensor JoinHeads(const at::Tensor& split);

struct AttentionInput {
  at::Tensor query;  // [B, H, T, c]; the positions of the T queries are consecutive
  at::Tensor key;    // [B, H, stretches * S, c]; within a stretch the positions are consecutive
  at::Tensor value;  // [B, H, stretches * S, c]
  at::Tensor
      positions;  // [H, T + S, c]: table rows from the largest distance (last query, first key) down, and one row more
                  // than there are distances. A causal caller may give S + 1 rows: what lies past the end is masked.
  int64_t stretches = 1;
  at::Tensor absent;  // true: no such key; broadcasts to [B, H, T, stretches * S]. Undefined: all are there.
};

// [B, H, T, c]. The softmax weights [B, H, T, stretches * S] go to *weights if it is not null. Every query needs a key.
at::Tensor RelativeAttention(const AttentionWeights& attention, const AttentionInput& input,
                             at::Tensor* weights = nullptr);

}  // namespace retro
