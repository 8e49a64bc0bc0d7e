// The streams that clients hold open, so that a server that stops can end them: gRPC's own shutdown waits for them, and
// an idle one would take all the time that it may.
#pragma once

#include <memory>
#include <vector>

#include "common/base/sync.h"

namespace retro {

class OpenStream {
 public:
  virtual ~OpenStream() = default;
  // Take no more, finish what was taken, end. Any thread; more than once.
  virtual void Drain() = 0;
};

// Any thread.
class OpenStreams {
 public:
  // Drains it at once if Drain() was called before.
  void Add(const std::shared_ptr<OpenStream>& stream) ABSL_LOCKS_EXCLUDED(mutex_);
  // Drains all, and those to come.
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  Mutex mutex_;
  std::vector<std::weak_ptr<OpenStream>> streams_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace retro
