// Something that is done again and again, on a thread of its own.
#pragma once

#include <chrono>
#include <functional>
#include <thread>

#include "common/base/sync.h"

namespace retro {

class Repeating {
 public:
  // Calls `what` before it returns, and then every `interval`. What it uses must outlive this.
  Repeating(std::chrono::milliseconds interval, std::function<void()> what);
  // Returns when it is not being called any more.
  ~Repeating();

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::chrono::milliseconds interval_;
  const std::function<void()> what_;
  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace retro
