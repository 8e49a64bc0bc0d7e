// A fixed number of threads and a bounded queue of work for them, fair between those whom the work is for.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "common/base/fair_share.h"
#include "common/base/sync.h"
#include "common/base/turns.h"

namespace retro {

class WorkerPool {
 public:
  // At most `queue_max` wait while all threads are at work.
  WorkerPool(int threads, size_t queue_max);
  // As Stop().
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False, and `work` is not run, if the queue is full (for `key`, see FairShare) or the pool stopped. Work of one key
  // is begun in the order it came; keys that have work waiting take turns. Where several have come lately none takes so
  // many of the threads that the next has to wait for its work to end: FairShare again, so four threads or fewer may
  // all be one key's. `ahead`: set, before the work is begun, to how much of the key waited already. Any thread.
  bool Submit(std::function<void()> work, const std::string& key = "", size_t* ahead = nullptr);

  // Runs `work` on the calling thread, in the place of one of the pool's, which saves waking that; false, and it is not
  // run, if it would have to wait for its turn, or as Submit. Any thread.
  bool RunHere(const std::function<void()>& work, const std::string& key = "");

  // Runs what is queued, then ends the threads. Not from a worker.
  void Stop();

  size_t queued() const;

  // How much work of `key` waits. Any thread.
  size_t queued(const std::string& key) const;

 private:
  void Loop();
  bool MayRun(const std::string& key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives the turn to who may run now; false if nobody may.
  bool FindNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  CondVar wake_;
  FairShare places_ ABSL_GUARDED_BY(mutex_);  // of what waits and what runs
  FairShare running_ ABSL_GUARDED_BY(mutex_);
  SeveralKeys keys_ ABSL_GUARDED_BY(mutex_);
  size_t queued_ ABSL_GUARDED_BY(mutex_) = 0;
  Turns<std::function<void()>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // constructor and Stop() only
};

}  // namespace retro
