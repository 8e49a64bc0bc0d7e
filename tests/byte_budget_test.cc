#include "common/base/byte_budget.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

namespace retro {
namespace {

TEST(ByteBudgetTest, WithoutKeysAllOfItIsTaken) {
  ByteBudget budget(1000);
  EXPECT_TRUE(budget.TryAcquire(600, ""));
  EXPECT_FALSE(budget.TryAcquire(401, ""));
  EXPECT_TRUE(budget.TryAcquire(400, ""));
  EXPECT_EQ(budget.bytes(), 1000u);
  EXPECT_FALSE(budget.TryAcquire(1, ""));
  EXPECT_TRUE(budget.TryAcquire(0, "")) << "nothing finds room";
}

TEST(ByteBudgetTest, WhoeverTakesAllThatItGetsLeavesSomeToOthers) {
  ByteBudget budget(1000);
  size_t large = 0;
  while (budget.TryAcquire(10, "large")) large += 10;
  EXPECT_GE(large, 790u);
  EXPECT_LE(large, 810u) << "four fifths";
  size_t second = 0;
  while (budget.TryAcquire(10, "second")) second += 10;
  EXPECT_GE(second, 150u) << "four fifths of what is left";
  EXPECT_FALSE(budget.TryAcquire(10, "large"));
  EXPECT_TRUE(budget.TryAcquire(10, "third"));
}

TEST(ByteBudgetTest, WhoHoldsNothingGetsWhateverIsFree) {
  ByteBudget budget(1000);
  EXPECT_TRUE(budget.TryAcquire(1000, "large"));
  EXPECT_FALSE(budget.TryAcquire(1, "small"));
  budget.Release(1000, "large");
  EXPECT_TRUE(budget.TryAcquire(500, "large"));
  EXPECT_FALSE(budget.TryAcquire(400, "large")) << "it would leave a fifth of what it holds";
  EXPECT_TRUE(budget.TryAcquire(500, "small"));
}

TEST(ByteBudgetTest, MoreThanThereIsFindsNoRoom) {
  ByteBudget budget(1000);
  EXPECT_FALSE(budget.TryAcquire(1001, ""));
  EXPECT_FALSE(budget.TryAcquire(SIZE_MAX, ""));
  EXPECT_EQ(budget.bytes(), 0u);
}

TEST(ByteBudgetTest, WhatIsHeldIsGivenBackOnce) {
  ByteBudget budget(1000);
  {
    HeldBytes held(budget, "key");
    EXPECT_TRUE(held.TryAdd(300));
    EXPECT_TRUE(held.TryAdd(200));
    const HeldBytes moved = std::move(held);
    EXPECT_EQ(budget.bytes(), 500u);
  }
  EXPECT_EQ(budget.bytes(), 0u);
  EXPECT_TRUE(budget.TryAcquire(1000, "key")) << "the key holds nothing any more";
}

}  // namespace
}  // namespace retro
