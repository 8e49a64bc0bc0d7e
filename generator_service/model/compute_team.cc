#include "generator_service/model/compute_team.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <memory>

#include "common/base/standing_team.h"

namespace retro {
namespace {

StandingTeam& TeamOfThisThread() {
  thread_local std::unique_ptr<StandingTeam> team;
  const int size = at::get_num_threads();
  if (team == nullptr || team->size() != size) {
    team.reset();
    team = std::make_unique<StandingTeam>(size);
  }
  return *team;
}

}  // namespace

void ShareOut(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body) {
  StandingTeam& team = TeamOfThisThread();
  const int64_t size = team.size();
  team.Run([&](int worker) { body(count * worker / size, count * (worker + 1) / size); });
}

void TakeInTurns(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body) {
  StandingTeam& team = TeamOfThisThread();
  const int64_t parts = int64_t{2} * team.size();
  std::atomic<int64_t> next = 0;
  team.Run([&](int) {
    int64_t begin = next.load(std::memory_order_relaxed);
    while (begin < count) {
      const int64_t end = begin + std::max<int64_t>((count - begin) / parts, 1);
      if (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      body(begin, end);
      begin = next.load(std::memory_order_relaxed);
    }
  });
}

}  // namespace retro
