// How much of what clients send may be in memory at once, over all streams: a slow store slows the senders instead of
// filling it.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <string>

#include "common/base/sync.h"

namespace retro {

class IngestBudget {
 public:
  IngestBudget(size_t documents_max, size_t bytes_max) : documents_max_(documents_max), bytes_max_(bytes_max) {}

  // Takes room for one document of `bytes`; `ready` is called once it is there: at once on this thread, or later on a
  // thread that releases. In the order of the calls with the same `key`; keys that wait take turns. A document larger
  // than the whole budget gets in when nothing else is.
  void Acquire(size_t bytes, const std::string& key, std::function<void()> ready);
  void Release(size_t bytes);

  size_t documents() const;
  size_t bytes() const;

 private:
  struct Waiting {
    size_t bytes;
    std::function<void()> ready;
  };
  bool Fits(size_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t documents_max_;
  const size_t bytes_max_;
  mutable Mutex mutex_;
  size_t documents_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::deque<Waiting>> waiting_ ABSL_GUARDED_BY(mutex_);  // by key; none is empty
  std::deque<std::string> turns_ ABSL_GUARDED_BY(mutex_);  // the keys of waiting_, whose turn it is first
};

}  // namespace retro
