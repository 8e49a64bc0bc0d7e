#include "retriever_service/embed/worker_team.h"

#include <gtest/gtest.h>

#include <vector>

namespace retro {
namespace {

TEST(WorkerTeamTest, EveryWorkerRunsOnceAndTheBarrierSeparatesRounds) {
  constexpr int kRounds = 2000;
  for (const int threads : {1, 2, 4}) {
    std::vector<int> runs(threads, 0);
    std::vector<int> progress(threads, 0);  // plain: the barrier alone orders the accesses
    std::atomic<int> behind = 0;
    TeamBarrier barrier;
    RunTeam(threads, [&](int worker, int size) {
      ++runs[worker];
      for (int round = 1; round <= kRounds; ++round) {
        progress[worker] = round;
        barrier.Wait(size);
        for (int other = 0; other < size; ++other) behind += progress[other] != round;
        barrier.Wait(size);
      }
    });
    EXPECT_EQ(behind, 0);
    for (const int count : runs) EXPECT_EQ(count, 1);
  }
}

TEST(WorkerTeamTest, AbortLetsThoseWhoWaitOut) {
  TeamBarrier barrier;
  std::atomic<int> refused = 0;
  RunTeam(3, [&](int worker, int size) {
    if (worker == 1) {
      barrier.Abort();
    } else if (size > 1) {
      refused += !barrier.Wait(size);
    }
    refused += !barrier.Wait(size);
  });
  EXPECT_EQ(refused, 5);
}

}  // namespace
}  // namespace retro
