// How many bytes of something may be in memory at once: whoever finds no room is refused, not made to wait.
#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

namespace retro {

// Any thread.
class ByteBudget {
 public:
  explicit ByteBudget(size_t bytes_max) : bytes_max_(bytes_max) {}

  // False, and nothing is taken, if there is no room for all of them.
  bool TryAcquire(size_t bytes) {
    size_t held = bytes_.load(std::memory_order_relaxed);
    do {
      if (bytes > bytes_max_ - held) return false;
    } while (!bytes_.compare_exchange_weak(held, held + bytes, std::memory_order_relaxed));
    return true;
  }
  void Release(size_t bytes) { bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  const size_t bytes_max_;
  std::atomic<size_t> bytes_ = 0;
};

// Bytes taken of a budget, given back with this.
class HeldBytes {
 public:
  // `budget` must outlive this.
  explicit HeldBytes(ByteBudget& budget) : budget_(&budget) {}
  ~HeldBytes() { budget_->Release(bytes_); }
  HeldBytes(HeldBytes&& other) noexcept : budget_(other.budget_), bytes_(std::exchange(other.bytes_, 0)) {}
  HeldBytes(const HeldBytes&) = delete;
  HeldBytes& operator=(const HeldBytes&) = delete;
  HeldBytes& operator=(HeldBytes&&) = delete;

  // As ByteBudget::TryAcquire, beside what is held already.
  bool TryAdd(size_t bytes) {
    if (!budget_->TryAcquire(bytes)) return false;
    bytes_ += bytes;
    return true;
  }

 private:
  ByteBudget* budget_;
  size_t bytes_ = 0;
};

}  // namespace retro
