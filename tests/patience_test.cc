#include "generator_service/engine/patience.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace retro {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Patience::Clock::time_point kStart{hours(1)};

TEST(PatienceTest, NobodyPassesBeforeTheRoomIsLate) {
  Patience patience;
  EXPECT_EQ(patience.look_again(), Patience::Clock::time_point::max());
  const auto late = kStart + Patience::kFirst + Patience::kStepTimes * 100 * milliseconds(50);
  auto now = kStart;
  for (; now < late; now = patience.look_again()) {
    patience.Look(7, 107, milliseconds(50), now);
    EXPECT_FALSE(patience.lets_pass());
    EXPECT_GT(patience.look_again(), now);
  }
  EXPECT_EQ(now, late);
  patience.Look(107, 107, milliseconds(50), now);
  EXPECT_TRUE(patience.lets_pass());
  patience.Rest();
  EXPECT_FALSE(patience.lets_pass());
  EXPECT_EQ(patience.look_again(), Patience::Clock::time_point::max());
}

// As when the first steps were a long prompt's.
TEST(PatienceTest, WhatAStepTakesIsThatOfTheLastLook) {
  Patience patience;
  patience.Look(0, 1000, seconds(1), kStart);
  EXPECT_LE(patience.look_again(), kStart + Patience::kFirst);
  patience.Look(100, 1000, milliseconds(1), kStart + seconds(10));
  EXPECT_TRUE(patience.lets_pass());
}

TEST(PatienceTest, AnotherThatIsPromisedRoomHoldsUpOthersNoLonger) {
  Patience patience;
  patience.Look(50, 60, milliseconds(100), kStart);
  patience.Look(55, 62, milliseconds(100), kStart + seconds(6));
  EXPECT_TRUE(patience.lets_pass());
  patience.Rest();
  patience.Look(0, 100, milliseconds(20), kStart);
  patience.Look(180'000, 181'000, milliseconds(20), kStart + hours(1));  // the last of many
  EXPECT_TRUE(patience.lets_pass());
  patience.Rest();
  patience.Look(50, 60, milliseconds(100), kStart);
  patience.Look(55, 40, milliseconds(100), kStart + seconds(6));  // of one that was promised it long ago
  EXPECT_TRUE(patience.lets_pass());
}

TEST(PatienceTest, OthersPassAThirdOfTheTimeAndAreHeldUpLongEnough) {
  Patience patience;
  patience.Look(0, 0, {}, kStart);
  Patience::Clock::duration passed{}, held{}, held_longest{};
  auto now = kStart + Patience::kFirst;
  while (now < kStart + hours(2)) {
    patience.Look(0, 0, {}, now);
    ASSERT_GT(patience.look_again(), now);
    const auto time = patience.look_again() - now;
    EXPECT_LE(time, patience.lets_pass() ? Patience::kPassMax : Patience::kHeldMax);
    (patience.lets_pass() ? passed : held) += time;
    if (!patience.lets_pass()) held_longest = std::max(held_longest, time);
    patience.Look(0, 0, {}, now + time / 2);  // for another reason
    EXPECT_EQ(patience.look_again(), now + time);
    now = patience.look_again();
  }
  EXPECT_EQ(held, 2 * passed);
  EXPECT_EQ(held_longest, Patience::kHeldMax);
}

}  // namespace
}  // namespace retro
