// The pool of cache blocks, and attention straight from its pages against the same attention over gathered rows.
#include "generator_service/model/paged_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <iostream>
#include <memory>
#include <random>
#include <vector>

#include "generator_service/model/attention.h"
#include "generator_service/model/position_tables.h"
#include "gtest/gtest.h"

namespace retro {
namespace {

constexpr uint64_t kSeed = 17;

ModelConfig Shape(int64_t heads, int64_t head_size, int64_t chunk_length, int64_t max_length) {
  ModelConfig config;
  config.layers = 2;
  config.heads = heads;
  config.head_size = head_size;
  config.chunk_length = chunk_length;
  config.max_length = max_length;
  return config;
}

AttentionWeights RandomAttention(const ModelConfig& config, bool biased, at::ScalarType type) {
  AttentionWeights weights;
  weights.heads = config.heads;
  weights.scale = 1 / std::sqrt(static_cast<double>(config.head_size));
  const DistanceRange distances = DecoderDistances(config);
  weights.positions = at::randn({config.heads, distances.count, config.head_size}).to(type);
  weights.largest_distance = distances.largest;
  if (!biased) return weights;
  weights.content_bias = at::randn({config.heads, 1, config.head_size});
  weights.position_bias = at::randn({config.heads, 1, config.head_size});
  return weights;
}

// The last token's attention over what the cache holds of a layer, the at:: way: [H, c].
at::Tensor Gathered(const AttentionWeights& weights, const KvCache& cache, int64_t layer, int64_t tokens,
                    const at::Tensor& query) {
  const KeysAndValues rows = cache.Read(layer, tokens, at::kFloat);
  const AttentionInput input{.query = query.unsqueeze(1).unsqueeze(0),
                             .key = rows.keys.unsqueeze(0),
                             .value = rows.values.unsqueeze(0),
                             .first_query = tokens - 1};
  return RelativeAttention(weights, input).squeeze(0).squeeze(1);
}

struct Case {
  int64_t heads, head_size, chunk_length;
  bool biased;
  at::ScalarType type;
};

class PagedAttentionTest : public testing::TestWithParam<Case> {};

TEST_P(PagedAttentionTest, EqualsGatheredRows) {
  const Case& c = GetParam();
  at::manual_seed(kSeed);
  at::set_num_threads(2);
  const ModelConfig config = Shape(c.heads, c.head_size, c.chunk_length, 150);
  const AttentionWeights weights = RandomAttention(config, c.biased, c.type);
  const auto pool = std::make_shared<KvPool>(config, 64, at::TensorOptions().dtype(c.type));
  ASSERT_TRUE(HasPagedAttention(weights, *pool));
  KvCache other(pool);  // so that the blocks of `cache` are not in order
  KvCache cache(pool);
  double worst = 0;
  for (int64_t tokens = 1; tokens <= 140; ++tokens) {
    ASSERT_TRUE(cache.Reserve(tokens));
    if (tokens % 3 == 0) ASSERT_TRUE(other.Reserve(tokens / 3));
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      cache.Write(layer, tokens - 1, {at::randn({c.heads, 1, c.head_size}), at::randn({c.heads, 1, c.head_size})});
    }
    const at::Tensor query = at::randn({c.heads, c.head_size});
    const at::Tensor attended = at::empty({c.heads, c.head_size});
    const PagedQuery paged{query.const_data_ptr<float>(), &cache, tokens, attended.data_ptr<float>()};
    PagedAttention(weights, /*layer=*/1, {&paged, 1});
    const at::Tensor expected = Gathered(weights, cache, /*layer=*/1, tokens, query);
    worst = std::max(worst, (attended - expected).abs().max().item<double>());
  }
  std::cout << "max |diff| " << worst << "\n";
  EXPECT_LE(worst, 2e-5);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PagedAttentionTest,
                         testing::Values(Case{2, 64, 64, true, at::kHalf}, Case{3, 128, 64, true, at::kHalf},
                                         Case{2, 64, 8, true, at::kFloat}, Case{1, 12, 8, false, at::kFloat},
                                         Case{5, 20, 10, true, at::kHalf}, Case{2, 7, 3, true, at::kFloat}),
                         [](const auto& info) { return "case" + std::to_string(info.index); });

TEST(KvPoolTest, ASequenceDoesNotDependOnItsCompany) {
  at::manual_seed(kSeed);
  const ModelConfig config = Shape(4, 64, 64, 300);
  const AttentionWeights weights = RandomAttention(config, true, at::kHalf);
  const auto pool = std::make_shared<KvPool>(config, 32, at::TensorOptions().dtype(at::kHalf));
  KvCache caches[3] = {KvCache(pool), KvCache(pool), KvCache(pool)};
  const int64_t tokens[3] = {5, 130, 300};
  const at::Tensor query = at::randn({3, 4 * 64});
  const at::Tensor together = at::empty_like(query);
  const at::Tensor alone = at::empty_like(query);
  std::vector<PagedQuery> queries;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(caches[i].Reserve(tokens[i]));
    caches[i].Write(0, 0, {at::randn({4, tokens[i], 64}), at::randn({4, tokens[i], 64})});
    PagedQuery own{query[i].const_data_ptr<float>(), &caches[i], tokens[i], alone[i].data_ptr<float>()};
    PagedAttention(weights, 0, {&own, 1});
    own.attended = together[i].data_ptr<float>();
    queries.push_back(own);
  }
  PagedAttention(weights, 0, queries);
  EXPECT_TRUE(at::equal(together, alone));
}

TEST(KvPoolTest, WhatIsWrittenIsReadAcrossBlocks) {
  at::manual_seed(kSeed);
  const auto pool = std::make_shared<KvPool>(Shape(2, 4, 8, 64), 8, at::TensorOptions().dtype(at::kFloat));
  KvCache cache(pool);
  ASSERT_TRUE(cache.Reserve(30));
  const KeysAndValues rows{at::randn({2, 30, 4}), at::randn({2, 30, 4})};
  for (int64_t first = 0; first < 30; first += 11) {
    const int64_t count = std::min<int64_t>(11, 30 - first);
    cache.Write(1, first, {rows.keys.narrow(1, first, count), rows.values.narrow(1, first, count)});
  }
  EXPECT_TRUE(at::equal(cache.Read(1, 30, at::kFloat).keys, rows.keys));
  EXPECT_TRUE(at::equal(cache.Read(1, 30, at::kFloat).values, rows.values));
  cache.DropOldestBlock();
  EXPECT_TRUE(at::equal(cache.Read(1, 22, at::kFloat).keys, rows.keys.slice(1, 8)));
}

// Sequences that come, grow, drop their oldest block, shrink and go at random.
TEST(KvPoolTest, EveryBlockComesBackAndNoneIsGivenTwice) {
  std::mt19937_64 random(kSeed);
  const int64_t blocks = 40;
  const auto pool = std::make_shared<KvPool>(Shape(1, 2, 8, 512), blocks, at::TensorOptions().dtype(at::kFloat));
  std::vector<std::unique_ptr<KvCache>> caches(9);
  int refused = 0;
  for (int step = 0; step < 20'000; ++step) {
    std::unique_ptr<KvCache>& cache = caches[random() % caches.size()];
    if (cache == nullptr) cache = std::make_unique<KvCache>(pool);
    const auto held = static_cast<int64_t>(cache->blocks().size());
    switch (random() % 4) {
      case 0:
        cache.reset();
        break;
      case 1:
        cache->Trim(static_cast<int64_t>(random() % (held * 8 + 1)));
        break;
      case 2:
        if (held > 0) cache->DropOldestBlock();
        break;
      default:
        if (!cache->Reserve(held * 8 + static_cast<int64_t>(random() % 60))) {
          ++refused;
          EXPECT_EQ(static_cast<int64_t>(cache->blocks().size()), held);
        }
    }
    std::vector<int64_t> taken;
    for (const auto& each : caches) {
      if (each != nullptr) taken.insert(taken.end(), each->blocks().begin(), each->blocks().end());
    }
    ASSERT_EQ(static_cast<int64_t>(taken.size()), pool->blocks_taken());
    std::sort(taken.begin(), taken.end());
    ASSERT_EQ(std::adjacent_find(taken.begin(), taken.end()), taken.end()) << "a block has two owners";
  }
  EXPECT_GT(refused, 100);
  caches.clear();
  EXPECT_EQ(pool->blocks_taken(), 0);
}

}  // namespace
}  // namespace retro
