// Multi-head attention with the position schemes of the code bases whose weights are taken over:
//   logit(t, s) = scale * (q_t . k_s + position term)
// Transformer-XL (Dai et al. 2019; RETRO paper, B.1): scale * ((q_t + u) . k_s + (q_t + v) . (W_R sinusoid(dist))),
// dist = position of t - position of s. dist takes few values, so W_R sinusoid(dist) is a table, one row a distance,
// made once for a model. Buckets: scale * q_t . k_s + a learned bias for each clamped distance. Rotary positions are in
// the queries and keys before they come here (rotary.h).
//
// Letters: B batch, H heads, T queries, S keys, c head size. Nothing here changes a tensor in place: autograd works
// throughout.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "generator_service/model/weights.h"

namespace retro {

// Rows for the distances `largest`, largest - 1, ... (`count` of them): [count, width], sines then cosines, base 10000.
at::Tensor SinusoidRows(double largest, int64_t count, int64_t width, const at::TensorOptions& options);

// W_R sinusoid(dist) for the distances `largest`, largest - 1, ...: [H, count, c]. `matrix` is W_R [H * c, width].
// Rows made before are taken from `cache`, which may be null.
at::Tensor PositionTable(const at::Tensor& matrix, int64_t largest, int64_t count, int64_t heads,
                         SinusoidCache* cache = nullptr);

// Splits the heads: [..., T, H * c] -> [..., H, T, c].
at::Tensor SplitHeads(const at::Tensor& rows, int64_t heads);
// Joins them: [..., H, T, c] -> [..., T, H * c].
at::Tensor JoinHeads(const at::Tensor& split);

struct AttentionInput {
  at::Tensor query;         // [B, H, T, c]; the positions of the T queries are consecutive
  at::Tensor key;           // [B, H, stretches * S, c]; within a stretch the positions are consecutive
  at::Tensor value;         // [B, H, stretches * S, c]
  int64_t first_query = 0;  // position of the first query, counted from the first key of every stretch
  int64_t stretches = 1;
  at::Tensor absent;     // true: no such key; broadcasts to [B, H, T, stretches * S]. Undefined: all are there.
  at::Tensor penalised;  // true: a key whose logit loses kPenalty; likewise
};

inline constexpr double kPenalty = 10000.0;

// [B, H, T, c]. The softmax weights [B, H, T, stretches * S] go to *weights if it is not null; a null key's are not
// among them. Every query needs a key.
at::Tensor RelativeAttention(const AttentionWeights& attention, const AttentionInput& input,
                             at::Tensor* weights = nullptr);

// Says in `input` that the keys of pad tokens, true in `pad`, are masked as the config has it.
void MaskPadKeys(const ModelConfig& config, const at::Tensor& pad, AttentionInput& input);

}  // namespace retro
