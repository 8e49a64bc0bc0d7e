// ATTN of the decoder: each piece over its own sequence, causal, with what its cache holds before it.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>

#include "generator_service/model/decoder.h"
#include "generator_service/model/weights.h"

namespace retro {

// Without its residual. h: [N, d]; positions: [N], undefined where the weights do not rotate; layers count from 0. The
// pieces' caches get their keys and values; there must be room for them.
at::Tensor SelfAttention(const ModelWeights& model, int64_t layer, const at::Tensor& h, const at::Tensor& positions,
                         std::span<const DecoderPiece> pieces);

}  // namespace retro
