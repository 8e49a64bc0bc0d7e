#include "retriever_service/embed/worker_team.h"

#include <omp.h>
#include <sched.h>

namespace retro {
namespace {

// 30 to 100 µs: longer than workers of equal shares differ, and no longer than what a sleep and a wake-up cost.
constexpr int kSpins = 3'000;

// The runtime orders what caller and workers do, but is not instrumented. What a region hands over by itself is
// therefore left out of ThreadSanitizer's sight, and these tell it the order of all else.
std::atomic<unsigned> g_order = 0;
[[gnu::noinline]] void Release() { g_order.fetch_add(1, std::memory_order_release); }
[[gnu::noinline]] void Acquire() { g_order.load(std::memory_order_acquire); }

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

__attribute__((no_sanitize("thread"))) void RunTeam(int threads,
                                                    const std::function<void(int worker, int size)>& body) {
  // A lone worker is no parallel region to the libraries: they are told by the thread's own setting instead.
  const int before = omp_get_max_threads();
  if (threads == 1) {
    omp_set_num_threads(1);
    body(0, 1);
    omp_set_num_threads(before);
    return;
  }
  // The caller lets a worker that was woken on its core begin and so leave; costs nothing where none waits there.
  const int core = sched_getcpu();
  Release();
#pragma omp parallel num_threads(threads)
  {
    Acquire();
    const int worker = omp_get_thread_num();
    if (worker == 0) {
      sched_yield();
    } else {
      LeaveCore(core);
    }
    body(worker, omp_get_num_threads());
    Release();
  }
  Acquire();
}

void LeaveCore(int core) {
  if (sched_getcpu() != core) return;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(core, &others);
  if (sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
}

bool TeamBarrier::Wait(int size) {
  const unsigned round = round_.load(std::memory_order_acquire);
  if (aborted_.load(std::memory_order_acquire)) return false;
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
    arrived_.store(0, std::memory_order_relaxed);
    waker_core_.store(sched_getcpu(), std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_acq_rel);
    round_.notify_all();
    return !aborted_.load(std::memory_order_acquire);
  }
  for (int i = 0; i < kSpins; ++i) {
    if (round_.load(std::memory_order_acquire) != round) return !aborted_.load(std::memory_order_acquire);
    Pause();
  }
  round_.wait(round, std::memory_order_acquire);
  LeaveCore(waker_core_.load(std::memory_order_relaxed));
  return !aborted_.load(std::memory_order_acquire);
}

void TeamBarrier::Abort() {
  aborted_.store(true, std::memory_order_release);
  round_.fetch_add(1, std::memory_order_acq_rel);
  round_.notify_all();
}

}  // namespace retro
