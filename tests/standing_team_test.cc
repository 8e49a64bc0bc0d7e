// Every worker runs once a round, rounds do not overlap, also after the workers have fallen asleep.
#include "common/base/standing_team.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace retro {
namespace {

TEST(StandingTeamTest, EveryWorkerRunsOnceARound) {
  for (const int size : {1, 2, 5}) {
    StandingTeam team(size);
    EXPECT_EQ(team.size(), size);
    std::vector<int> runs(size);  // plain: a round's end is what orders them
    for (int round = 1; round <= 2'000; ++round) {
      team.Run([&](int worker) { ++runs[worker]; });
      for (const int count : runs) ASSERT_EQ(count, round);
    }
  }
}

TEST(StandingTeamTest, TheCallerIsWorkerZero) {
  StandingTeam team(3);
  std::thread::id zero;
  team.Run([&](int worker) {
    if (worker == 0) zero = std::this_thread::get_id();
  });
  EXPECT_EQ(zero, std::this_thread::get_id());
}

TEST(StandingTeamTest, SleepersWake) {
  StandingTeam team(3);
  std::atomic<int> runs = 0;
  for (int round = 0; round < 3; ++round) {
    team.Run([&](int) { ++runs; });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // far longer than they spin
  }
  EXPECT_EQ(runs, 9);
}

}  // namespace
}  // namespace retro
