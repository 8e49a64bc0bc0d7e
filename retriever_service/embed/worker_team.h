// A team of threads for the length of one call, and a barrier for them. Torch-free, but on OpenMP: inside its region
// the matrix libraries see that they are called from a worker and stay on its thread, so that the team alone decides
// how work is split and no library call waits for other threads.
#pragma once

#include <atomic>
#include <functional>

namespace retro {

// Runs body(worker, size) on `threads` threads, worker = 0 ... size-1, and returns when all have returned. Worker 0 is
// the calling thread. The runtime may give fewer threads than asked for: size says how many. The workers run at the
// same time, so they may wait for each other. `body` must not throw.
void RunTeam(int threads, const std::function<void(int worker, int size)>& body);

// Moves the calling thread off `core` (a number of sched_getcpu's) if it is there and may run elsewhere; its mask of
// cores stays as it was. A kernel may wake a thread on the core of the one that wakes it and leave both there for
// milliseconds, other cores idle (guests that pack their threads onto few virtual cores do), and two of a team on one
// core are always wrong: its workers call it when they have been woken.
void LeaveCore(int core);

// All of a team wait for each other, often and for microseconds: spins a little, then sleeps. Any number of rounds.
class TeamBarrier {
 public:
  // False once somebody has called Abort; then the rest of the team must not go on.
  bool Wait(int size);
  // Lets everybody out: a worker that fails calls it, since the others would wait for it for ever.
  void Abort();

 private:
  std::atomic<int> arrived_ = 0;
  std::atomic<unsigned> round_ = 0;
  std::atomic<int> waker_core_ = -1;  // of the last to arrive
  std::atomic<bool> aborted_ = false;
};

}  // namespace retro
