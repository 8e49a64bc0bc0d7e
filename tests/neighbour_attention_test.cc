// CCA of single tokens, straight from the chunks' memories, against the same attention over stacked memories.
#include "generator_service/model/neighbour_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <iostream>
#include <vector>

#include "generator_service/model/attention.h"
#include "generator_service/model/position_tables.h"
#include "gtest/gtest.h"

namespace retro {
namespace {

constexpr uint64_t kSeed = 23;
constexpr int64_t kHeads = 3;
constexpr int64_t kHeadSize = 20;
constexpr int64_t kChunk = 6;       // m
constexpr int64_t kNeighbour = 11;  // r

AttentionWeights RandomWeights(at::ScalarType type, bool biased) {
  ModelConfig config;
  config.chunk_length = kChunk;
  config.neighbour_length = kNeighbour;
  const DistanceRange distances = CcaDistances(config);
  AttentionWeights weights;
  weights.heads = kHeads;
  weights.scale = 1 / std::sqrt(static_cast<double>(kHeadSize));
  weights.positions = at::randn({kHeads, distances.count, kHeadSize}).to(type);
  weights.largest_distance = distances.largest;
  if (!biased) return weights;
  weights.content_bias = at::randn({kHeads, 1, kHeadSize});
  weights.position_bias = at::randn({kHeads, 1, kHeadSize});
  return weights;
}

ChunkMemory RandomMemory(int64_t neighbours, at::ScalarType type, bool masked) {
  ChunkMemory memory;
  for (int layer = 0; layer < 2; ++layer) {
    memory.keys.push_back(at::randn({kHeads, neighbours * kNeighbour, kHeadSize}).to(type));
    memory.values.push_back(at::randn({kHeads, neighbours * kNeighbour, kHeadSize}).to(type));
  }
  if (!masked) return memory;
  memory.absent = at::randn({neighbours * kNeighbour}).lt(0);
  memory.absent[1] = false;
  return memory;
}

// The at:: way, of layer 1: [H, c].
at::Tensor Stacked(const AttentionWeights& weights, const ChunkMemory& memory, int64_t place, const at::Tensor& query) {
  AttentionInput input{.query = query.unsqueeze(1).unsqueeze(0),
                       .key = memory.keys[1].to(at::kFloat).unsqueeze(0),
                       .value = memory.values[1].to(at::kFloat).unsqueeze(0),
                       .first_query = place + kChunk - 1,
                       .stretches = memory.keys[1].size(1) / kNeighbour,
                       .absent = memory.absent};
  return RelativeAttention(weights, input).squeeze(0).squeeze(1);
}

TEST(NeighbourAttentionTest, EqualsStackedMemories) {
  at::manual_seed(kSeed);
  at::set_num_threads(2);
  double worst = 0;
  for (const at::ScalarType type : {at::kFloat, at::kHalf}) {
    for (const bool masked : {false, true}) {
      const AttentionWeights weights = RandomWeights(type, masked);
      ASSERT_TRUE(HasNeighbourAttention(weights));
      std::vector<ChunkMemory> memories;
      for (const int64_t neighbours : {1, 2, 5}) memories.push_back(RandomMemory(neighbours, type, masked));
      const at::Tensor rows = at::randn({kChunk * 3, kHeads, kHeadSize});
      const at::Tensor attended = at::empty_like(rows);
      std::vector<NeighbourQuery> queries;
      for (int64_t i = 0; i < rows.size(0); ++i) {
        queries.push_back(
            {rows[i].const_data_ptr<float>(), &memories[i % 3], i % kChunk, attended[i].data_ptr<float>()});
      }
      NeighbourAttention(weights, /*cca_index=*/1, kNeighbour, queries);
      for (int64_t i = 0; i < rows.size(0); ++i) {
        const at::Tensor expected = Stacked(weights, memories[i % 3], i % kChunk, rows[i]);
        worst = std::max(worst, (attended[i] - expected).abs().max().item<double>());
      }
    }
  }
  std::cout << "seed " << kSeed << ", max |diff| " << worst << "\n";
  EXPECT_LE(worst, 2e-5);
}

TEST(NeighbourAttentionTest, WhatItDoesNotKnowIsLeftToOthers) {
  AttentionWeights weights = RandomWeights(at::kFloat, false);
  weights.null_key = at::zeros({kHeads, 1, kHeadSize});
  EXPECT_FALSE(HasNeighbourAttention(weights));
  EXPECT_FALSE(HasNeighbourAttention(AttentionWeights()));
  EXPECT_FALSE(HasNeighbourAttention(RandomWeights(at::kDouble, false)));
}

}  // namespace
}  // namespace retro
