// Threads that stay: for a caller that has something to share out every few microseconds, as one token's way through a
// model has. A worker that has nothing to do spins for as long as the caller's own work between two shares takes, and
// only then sleeps; OpenMP's sleep at once under the passive policy, and waking them costs more than the work.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace retro {

class StandingTeam {
 public:
  // The caller of Run is one of the `size` workers.
  explicit StandingTeam(int size);
  ~StandingTeam();
  StandingTeam(const StandingTeam&) = delete;
  StandingTeam& operator=(const StandingTeam&) = delete;

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  // Runs body(worker) once for each worker = 0 ... size-1, at the same time; worker 0 is the calling thread. Returns
  // when all have. One caller at a time; `body` must not throw nor call Run.
  void Run(const std::function<void(int worker)>& body);

 private:
  void Loop(int worker);

  const std::function<void(int worker)>* body_ = nullptr;  // written before round_ rises, read after
  std::atomic<uint32_t> round_ = 0;
  std::atomic<int> busy_ = 0;  // workers that have not finished this round
  std::atomic<bool> ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace retro
