// Which distances each attention of a model can meet, and which rows of its table a call needs. Tables fall from the
// largest distance and hold one row more than there are distances (see AttentionInput::positions). dist = query
// position - key position; m chunk length, r neighbour length, n longest sequence.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "generator_service/model/config.h"

namespace retro {

struct DistanceRange {
  int64_t largest;
  int64_t count;
};

// Decoder self-attention, causal: n-1 ... 0.
inline DistanceRange DecoderDistances(const ModelConfig& c) { return {c.max_length - 1, c.max_length + 1}; }
// For queries whose last one stands at position keys - 1, over keys 0 ... keys-1.
inline at::Tensor DecoderRows(const at::Tensor& table, int64_t keys) {
  return table.narrow(1, table.size(1) - 1 - keys, keys + 1);
}

// CCA, eq. 6: place i in the attending span, place i' in the neighbour, dist = i - i' + m - 1: 2m-2 ... m-r.
inline DistanceRange CcaDistances(const ModelConfig& c) {
  return {2 * c.chunk_length - 2, c.chunk_length + c.neighbour_length};
}
// For the queries at places first_place ... first_place + queries - 1.
inline at::Tensor CcaRows(const at::Tensor& table, const ModelConfig& c, int64_t first_place, int64_t queries) {
  return table.narrow(1, c.chunk_length - first_place - queries, queries + c.neighbour_length);
}

// Encoder self-attention over a neighbour: r-1 ... -(r-1).
inline DistanceRange EncoderDistances(const ModelConfig& c) { return {c.neighbour_length - 1, 2 * c.neighbour_length}; }

// Encoder onto the chunk's activations, eq. 7: i' - i, r-1 ... -(m-1).
inline DistanceRange ConditioningDistances(const ModelConfig& c) {
  return {c.neighbour_length - 1, c.neighbour_length + c.chunk_length};
}

}  // namespace retro
