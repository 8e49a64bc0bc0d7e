// Distances to half-precision vectors against plain sums in double precision, at every length of tail.
#include "retriever_service/index/half_distance.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "common/document/half.h"

namespace retro {
namespace {

constexpr uint32_t kSeed = 20240611;
constexpr size_t kLengthMax = 130;  // several turns of the widest loop, and every rest behind it

TEST(HalfDistanceTest, EqualsThePlainSumAtEveryLength) {
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal;
  for (size_t length = 1; length <= kLengthMax; ++length) {
    std::vector<float> query(length), vector(length);
    for (float& x : query) x = normal(random);
    for (float& x : vector) x = normal(random);
    const std::string halves = ToHalf(vector);
    FromHalf(halves, vector);
    double expected = 0;
    for (size_t i = 0; i < length; ++i) expected += (double{query[i]} - vector[i]) * (double{query[i]} - vector[i]);
    EXPECT_NEAR(SquaredDistance(query, halves), expected, 1e-5 * expected) << "seed " << kSeed << " length " << length;
    EXPECT_EQ(SquaredDistance(vector, halves), 0);
  }
}

TEST(HalfDistanceTest, DoesNotDependOnWhereTheBytesLie) {
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal;
  std::vector<float> query(77), vector(77);
  for (float& x : query) x = normal(random);
  for (float& x : vector) x = normal(random);
  const std::string halves = ToHalf(vector);
  const float expected = SquaredDistance(query, halves);
  for (size_t shift = 1; shift < 64; ++shift) {
    const std::string moved = std::string(shift, '\x7f') + halves;
    EXPECT_EQ(SquaredDistance(query, std::string_view(moved).substr(shift)), expected);
  }
}

}  // namespace
}  // namespace retro
