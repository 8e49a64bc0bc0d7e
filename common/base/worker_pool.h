// A fixed number of threads and a bounded queue of work for them.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "common/base/sync.h"

namespace retro {

class WorkerPool {
 public:
  WorkerPool(int threads, size_t queue_max);
  // As Stop().
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False, and `work` is not run, if the queue is full or the pool stopped. Any thread.
  bool Submit(std::function<void()> work);

  // Runs what is queued, then ends the threads. Not from a worker.
  void Stop();

  size_t queued() const;

 private:
  void Loop();

  const size_t queue_max_;
  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // constructor and Stop() only
};

}  // namespace retro
