// Which distances each attention of a model can meet. dist = query position - key position; m chunk length, r neighbour
// length, n longest sequence.
#pragma once

#include <cstdint>

#include "generator_service/model/config.h"

namespace retro {

// Of Transformer-XL's tables, which fall from the largest distance and hold one row more than there are distances: see
// RelativeAttention.
struct DistanceRange {
  int64_t largest = 0;
  int64_t count = 0;
};

// Decoder self-attention, causal: n-1 ... 0.
inline DistanceRange DecoderDistances(const ModelConfig& c) { return {c.max_length - 1, c.max_length + 1}; }

// CCA, eq. 6: place i in the attending span, place i' in the neighbour, dist = i - i' + m - 1: 2m-2 ... m-r.
inline DistanceRange CcaDistances(const ModelConfig& c) {
  return {2 * c.chunk_length - 2, c.chunk_length + c.neighbour_length};
}

// Encoder self-attention over a neighbour: r-1 ... -(r-1).
inline DistanceRange EncoderDistances(const ModelConfig& c) { return {c.neighbour_length - 1, 2 * c.neighbour_length}; }

// Encoder onto the chunk's activations, eq. 7: i' - i, r-1 ... -(m-1).
inline DistanceRange ConditioningDistances(const ModelConfig& c) {
  return {c.neighbour_length - 1, c.neighbour_length + c.chunk_length};
}

// The first of `buckets` distances key - query that have a bias of their own; those beyond either end share its bias.
inline int64_t LowestCausalBucket(int64_t buckets) { return 1 - buckets; }  // to 0
inline int64_t LowestBucket(int64_t buckets) { return -(buckets / 2) - (buckets % 2 - 1); }

}  // namespace retro
