// The nearest centroids against a plain search among all of them, one query at a time and many at once.
#include "retriever_service/index/centroids.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "common/document/half.h"
#include "retriever_service/index/half_distance.h"

namespace retro {
namespace {

constexpr uint32_t kSeed = 20261127;

std::vector<float> RandomVectors(size_t count, size_t dimension, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> vectors(count * dimension);
  for (float& x : vectors) x = normal(random);
  return vectors;
}

std::vector<float> Distances(std::span<const float> query, std::span<const float> centroids) {
  std::vector<float> distances;
  for (size_t at = 0; at < centroids.size(); at += query.size()) {
    const auto centroid = centroids.subspan(at, query.size());
    distances.push_back(SquaredDistance(query, ToHalf(std::vector<float>(centroid.begin(), centroid.end()))));
  }
  return distances;
}

struct Case {
  size_t count, dimension, queries, most;
};

class CentroidsTest : public testing::TestWithParam<Case> {};

TEST_P(CentroidsTest, FindsTheNearest) {
  const auto [count, dimension, queries, most] = GetParam();
  const std::vector<float> vectors = RandomVectors(count, dimension, kSeed);
  const std::vector<float> asked = RandomVectors(queries, dimension, kSeed + 1);
  const Centroids centroids(vectors, dimension);
  ASSERT_EQ(centroids.count(), count);
  std::vector<int64_t> nearest(queries * most, -7);
  centroids.FindNearest(asked, most, nearest);
  for (size_t q = 0; q < queries; ++q) {
    const std::vector<float> distances = Distances(std::span(asked).subspan(q * dimension, dimension), vectors);
    std::vector<float> sorted = distances;
    std::sort(sorted.begin(), sorted.end());
    const auto found = std::span(nearest).subspan(q * most, most);
    const std::set<int64_t> distinct(found.begin(), found.begin() + std::min(most, count));
    EXPECT_EQ(distinct.size(), std::min(most, count)) << "one twice";
    const float tolerance = 1e-4F * sorted.back();  // many at once are summed in another order
    for (size_t i = 0; i < most; ++i) {
      if (i >= count) {
        EXPECT_EQ(found[i], -1);
        continue;
      }
      ASSERT_GE(found[i], 0);
      ASSERT_LT(found[i], static_cast<int64_t>(count));
      EXPECT_LE(distances[found[i]], sorted[std::min(most, count) - 1] + tolerance);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, CentroidsTest,
                         testing::Values(Case{1, 4, 1, 1}, Case{1, 4, 1, 3}, Case{1000, 384, 1, 25},
                                         Case{1000, 384, 7, 97}, Case{1000, 384, 64, 97}, Case{1000, 7, 21, 1},
                                         Case{1000, 7, 1, 1000}, Case{300, 33, 20, 299}, Case{20, 3, 30, 40}));

// Equal distances are as many as there are, and none is left out for that.
TEST(CentroidsTiesTest, FindsAsManyAsAreAskedForAmongEqualOnes) {
  const std::vector<float> same(200 * 8, 1.0F);
  const Centroids centroids(same, 8);
  for (const size_t queries : {1, 32}) {
    const std::vector<float> asked(queries * 8, 0.5F);
    std::vector<int64_t> nearest(queries * 50);
    centroids.FindNearest(asked, 50, nearest);
    for (size_t q = 0; q < queries; ++q) {
      const auto found = std::span(nearest).subspan(q * 50, 50);
      EXPECT_EQ(std::set<int64_t>(found.begin(), found.end()).size(), 50U);
    }
  }
}

}  // namespace
}  // namespace retro
