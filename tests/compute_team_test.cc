// Whatever is shared out is done once, by as many workers as torch gives the thread.
#include "generator_service/model/compute_team.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace retro {
namespace {

TEST(ComputeTeamTest, RangesTileWhatThereIs) {
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    for (const int64_t count : {0, 1, 2, 5, 48, 1000}) {
      std::vector<std::atomic<int>> shared(static_cast<size_t>(count));
      std::vector<std::atomic<int>> in_turns(static_cast<size_t>(count));
      const auto into = [](std::vector<std::atomic<int>>& done) {
        return [&done](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++done.at(static_cast<size_t>(i));
        };
      };
      ShareOut(count, into(shared));
      TakeInTurns(count, into(in_turns));
      for (const auto& times : shared) ASSERT_EQ(times, 1) << count;
      for (const auto& times : in_turns) ASSERT_EQ(times, 1) << count;
    }
  }
}

TEST(ComputeTeamTest, TurnsShrinkToOne) {
  at::set_num_threads(1);
  std::vector<int64_t> turns;
  TakeInTurns(20, [&](int64_t begin, int64_t end) { turns.push_back(end - begin); });
  EXPECT_EQ(turns, (std::vector<int64_t>{10, 5, 2, 1, 1, 1}));
}

}  // namespace
}  // namespace retro
