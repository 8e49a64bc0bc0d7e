#include "generator_service/engine/shared_run.h"

#include <gtest/gtest.h>

#include <vector>

namespace retro {
namespace {

int64_t Longest(const std::vector<TokenId>& text, const std::vector<TokenId>& row) {
  return LongestSharedRun(text, row, /*pad_id=*/0);
}

TEST(SharedRunTest, EndsWithTheLastToken) {
  EXPECT_EQ(Longest({9, 1, 2, 3}, {1, 2, 3, 4}), 3);
  EXPECT_EQ(Longest({1, 2, 3, 9}, {1, 2, 3, 4}), 0);
  EXPECT_EQ(Longest({3}, {1, 2, 3}), 1);
}

TEST(SharedRunTest, TakesTheLongestOfSeveralPlaces) { EXPECT_EQ(Longest({7, 5, 6}, {5, 6, 1, 7, 5, 6, 2, 6}), 3); }

TEST(SharedRunTest, ReachesFromTheNeighbourIntoItsContinuation) {
  EXPECT_EQ(Longest({1, 2, 3, 4}, {1, 2, 0, 3, 4, 0}), 4);
}

TEST(SharedRunTest, PadsAreInNoRun) { EXPECT_EQ(Longest({0, 0}, {1, 0, 0, 0}), 0); }

}  // namespace
}  // namespace retro
