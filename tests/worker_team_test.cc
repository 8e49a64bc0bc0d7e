#include "retriever_service/embed/worker_team.h"

#include <gtest/gtest.h>
#include <sched.h>

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

cpu_set_t AllowedCores() {
  cpu_set_t allowed;
  EXPECT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  return allowed;
}

// Brings the calling thread to `core`, then lets it run on `allowed` again.
void GoTo(int core, const cpu_set_t& allowed) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  ASSERT_EQ(sched_setaffinity(0, sizeof allowed, &allowed), 0);
}

TEST(WorkerTeamTest, LeaveCoreMovesAndKeepsTheMask) {
  constexpr int kTimes = 100;
  const cpu_set_t allowed = AllowedCores();
  const int core = sched_getcpu();
  int moved = 0;
  for (int i = 0; i < kTimes; ++i) {
    GoTo(core, allowed);
    LeaveCore(core);
    moved += sched_getcpu() != core;
    const cpu_set_t after = AllowedCores();
    ASSERT_TRUE(CPU_EQUAL(&after, &allowed));
  }
  EXPECT_GE(moved, CPU_COUNT(&allowed) > 1 ? kTimes / 2 : 0);  // the kernel may move a thread back at any time
}

TEST(WorkerTeamTest, LeaveCoreStaysWhereThereIsNoOther) {
  const cpu_set_t allowed = AllowedCores();
  const int core = sched_getcpu();
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  LeaveCore(core);
  EXPECT_EQ(sched_getcpu(), core);
  const cpu_set_t after = AllowedCores();
  EXPECT_TRUE(CPU_EQUAL(&after, &one));
  ASSERT_EQ(sched_setaffinity(0, sizeof allowed, &allowed), 0);
}

}  // namespace
}  // namespace retro
