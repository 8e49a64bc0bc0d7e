// Counts the memory of segments under construction, for as long as they are: what a merge of millions of rows takes is
// more than anything else that comes and goes.
#pragma once

#include <atomic>
#include <cstdint>

namespace retro {

class BuildMemory {
 public:
  // `total`: of all that are under construction; outlives this.
  explicit BuildMemory(std::atomic<uint64_t>& total) : total_(total) {}
  ~BuildMemory() { Set(0); }
  BuildMemory(const BuildMemory&) = delete;
  BuildMemory& operator=(const BuildMemory&) = delete;

  // What is held now, in all.
  void Set(uint64_t bytes) {
    total_.fetch_add(bytes - held_, std::memory_order_relaxed);
    held_ = bytes;
  }

 private:
  std::atomic<uint64_t>& total_;
  uint64_t held_ = 0;
};

}  // namespace retro
