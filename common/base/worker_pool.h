// A fixed number of threads and a bounded queue of work for them, fair between those whom the work is for.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/fair_share.h"
#include "common/base/sync.h"

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
  // is begun in the order it came; keys that have work waiting take turns. Any thread.
  bool Submit(std::function<void()> work, const std::string& key = "");

  // Runs `work` on the calling thread, in the place of one of the pool's, which saves waking that; false, and it is not
  // run, if it would have to wait for its turn, or as Submit. Any thread.
  bool RunHere(const std::function<void()>& work, const std::string& key = "");

  // Runs what is queued, then ends the threads. Not from a worker.
  void Stop();

  size_t queued() const;

 private:
  void Loop();
  // The work whose turn it is, and its key.
  std::pair<std::function<void()>, std::string> TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int threads_max_;
  mutable Mutex mutex_;
  CondVar wake_;
  FairShare places_ ABSL_GUARDED_BY(mutex_);  // of what waits and what runs
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t queued_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::deque<std::function<void()>>> queues_ ABSL_GUARDED_BY(mutex_);  // by key; none is empty
  std::deque<std::string> turns_ ABSL_GUARDED_BY(mutex_);  // the keys of queues_, whose turn it is first
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // constructor and Stop() only
};

}  // namespace retro
