// How many bytes of something may be in memory at once, shared fairly by those whom it is for: whoever finds no room is
// refused, not made to wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "common/base/fair_share.h"
#include "common/base/sync.h"

namespace retro {

// Any thread.
class ByteBudget {
 public:
  explicit ByteBudget(size_t bytes_max) : share_(static_cast<int64_t>(bytes_max)), bytes_max_(bytes_max) {}

  // False, and nothing is taken, if there is no room for all of them, or none for `key` (see FairShare).
  bool TryAcquire(size_t bytes, const std::string& key) {
    if (bytes == 0) return true;
    if (bytes > bytes_max_) return false;
    const MutexLock lock(mutex_);
    return share_.TryTake(key, static_cast<int64_t>(bytes));
  }
  // Takes them whether there is room or not.
  void Acquire(size_t bytes, const std::string& key) {
    if (bytes == 0) return;
    const MutexLock lock(mutex_);
    share_.Take(key, static_cast<int64_t>(bytes));
  }
  void Release(size_t bytes, const std::string& key) {
    if (bytes == 0) return;
    const MutexLock lock(mutex_);
    share_.Release(key, static_cast<int64_t>(bytes));
  }

  size_t bytes_max() const { return bytes_max_; }
  size_t bytes() const {
    const MutexLock lock(mutex_);
    return static_cast<size_t>(share_.taken());
  }

 private:
  mutable Mutex mutex_;
  FairShare share_ ABSL_GUARDED_BY(mutex_);
  const size_t bytes_max_;
};

// Bytes taken of a budget for somebody, given back with this. One thread at a time.
class HeldBytes {
 public:
  // `budget` must outlive this.
  HeldBytes(ByteBudget& budget, std::string key) : budget_(&budget), key_(std::move(key)) {}
  ~HeldBytes() { budget_->Release(bytes_, key_); }
  HeldBytes(HeldBytes&& other) noexcept
      : budget_(other.budget_), key_(std::move(other.key_)), bytes_(std::exchange(other.bytes_, 0)) {}
  HeldBytes(const HeldBytes&) = delete;
  HeldBytes& operator=(const HeldBytes&) = delete;
  HeldBytes& operator=(HeldBytes&&) = delete;

  // As ByteBudget::TryAcquire, beside what is held already.
  bool TryAdd(size_t bytes) {
    if (!budget_->TryAcquire(bytes, key_)) return false;
    bytes_ += bytes;
    return true;
  }
  // As ByteBudget::Acquire.
  void Add(size_t bytes) {
    budget_->Acquire(bytes, key_);
    bytes_ += bytes;
  }

  size_t bytes() const { return bytes_; }

 private:
  ByteBudget* budget_;
  std::string key_;
  size_t bytes_ = 0;
};

}  // namespace retro
