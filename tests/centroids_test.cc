// The nearest centroids against a plain search among all of them.
#include "retriever_service/index/centroids.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "common/document/half.h"
#include "retriever_service/index/half_distance.h"
#include "tests/packed_codes.h"

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

// A code a coordinate, of 16 steps.
float ValueOf(size_t code) { return (static_cast<float>(code) - 7.5F) / 2.5F; }

std::vector<CodeQuad> CodesOf(std::span<const float> vectors, size_t dimension) {
  std::vector<uint8_t> values;
  values.reserve(vectors.size());
  for (const float x : vectors) {
    values.push_back(static_cast<uint8_t>(std::clamp(std::lround(x * 2.5F + 7.5F), 0L, 15L)));
  }
  return Packed(values, dimension);
}

CodeTables TablesOf(std::span<const float> queries, size_t dimension) {
  std::vector<float> tables;
  tables.reserve(queries.size() * kCodeValues);
  for (const float x : queries) {
    for (size_t code = 0; code < kCodeValues; ++code) tables.push_back((x - ValueOf(code)) * (x - ValueOf(code)));
  }
  return {dimension, tables};
}

// The numbers of the `most` nearest, of distances from vectors in half precision.
std::set<int64_t> Nearest(std::span<const float> query, std::span<const float> centroids, size_t most) {
  std::vector<std::pair<float, int64_t>> distances;
  for (size_t at = 0; at < centroids.size(); at += query.size()) {
    const auto centroid = centroids.subspan(at, query.size());
    distances.emplace_back(SquaredDistance(query, ToHalf(std::vector<float>(centroid.begin(), centroid.end()))),
                           distances.size());
  }
  std::sort(distances.begin(), distances.end());
  std::set<int64_t> nearest;
  for (size_t i = 0; i < std::min(most, distances.size()); ++i) nearest.insert(distances[i].second);
  return nearest;
}

struct Case {
  size_t count, dimension, queries, most;
  double share_least;  // of the nearest that are found
};

class CentroidsTest : public testing::TestWithParam<Case> {};

TEST_P(CentroidsTest, FindsTheNearest) {
  const auto [count, dimension, queries, most, share_least] = GetParam();
  const std::vector<float> vectors = RandomVectors(count, dimension, kSeed);
  const std::vector<float> asked = RandomVectors(queries, dimension, kSeed + 1);
  const Centroids centroids(vectors, dimension, CodesOf(vectors, dimension));
  ASSERT_EQ(centroids.count(), count);
  std::vector<int64_t> nearest(queries * most, -7);
  centroids.FindNearest(asked, TablesOf(asked, dimension), most, nearest);
  size_t wanted = 0, hit = 0;
  for (size_t q = 0; q < queries; ++q) {
    const std::set<int64_t> best = Nearest(std::span(asked).subspan(q * dimension, dimension), vectors, most);
    const auto found = std::span(nearest).subspan(q * most, most);
    const std::set<int64_t> distinct(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(best.size()));
    EXPECT_EQ(distinct.size(), best.size()) << "one twice";
    EXPECT_GE(*distinct.begin(), 0);
    EXPECT_LT(*distinct.rbegin(), static_cast<int64_t>(count));
    for (size_t i = best.size(); i < most; ++i) EXPECT_EQ(found[i], -1);
    wanted += best.size();
    for (const int64_t centroid : best) hit += distinct.count(centroid);
  }
  std::cout << hit << " of " << wanted << "\n";
  EXPECT_GE(static_cast<double>(hit), share_least * static_cast<double>(wanted));
}

INSTANTIATE_TEST_SUITE_P(Sizes, CentroidsTest,
                         testing::Values(Case{1, 4, 1, 1, 1}, Case{1, 4, 1, 3, 1}, Case{1000, 384, 1, 25, 0.95},
                                         Case{1000, 384, 64, 1, 0.98}, Case{1000, 384, 64, 3, 0.98},
                                         Case{1000, 384, 7, 97, 0.99}, Case{1000, 384, 64, 97, 0.99},
                                         Case{1000, 7, 21, 20, 0.98}, Case{1000, 7, 1, 500, 1},
                                         Case{1000, 7, 1, 1000, 1}, Case{300, 33, 20, 299, 1}, Case{20, 3, 30, 40, 1}));

// Equal distances are as many as there are, and none is left out for that.
TEST(CentroidsTiesTest, FindsAsManyAsAreAskedForAmongEqualOnes) {
  const std::vector<float> same(200 * 8, 1.0F);
  const Centroids centroids(same, 8, CodesOf(same, 8));
  for (const size_t queries : {1, 32}) {
    const std::vector<float> asked(queries * 8, 0.5F);
    std::vector<int64_t> nearest(queries * 50);
    centroids.FindNearest(asked, TablesOf(asked, 8), 50, nearest);
    for (size_t q = 0; q < queries; ++q) {
      const auto found = std::span(nearest).subspan(q * 50, 50);
      EXPECT_EQ(std::set<int64_t>(found.begin(), found.end()).size(), 50U);
    }
  }
}

}  // namespace
}  // namespace retro
