// Torch's memory on the CPU, of which a test decides what becomes of each allocation.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace retro {

// In place of torch's own, from which it takes, as long as it lives.
class TorchMemory : public at::Allocator {
 public:
  TorchMemory() : real_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, kPriority); }
  ~TorchMemory() override { c10::SetCPUAllocator(real_, kPriority); }
  TorchMemory(const TorchMemory&) = delete;
  TorchMemory& operator=(const TorchMemory&) = delete;

  at::DataPtr allocate(size_t bytes) override {
    BeforeAllocation();
    return real_->allocate(bytes);
  }
  at::DeleterFnPtr raw_deleter() const override { return real_->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t bytes) const override { real_->copy_data(to, from, bytes); }

 protected:
  // What it throws becomes of the allocation.
  virtual void BeforeAllocation() = 0;

 private:
  static constexpr uint8_t kPriority = 255;
  at::Allocator* const real_;
};

// Counts its bytes.
class CountedTorchMemory : public TorchMemory {
 public:
  at::DataPtr allocate(size_t bytes) override {
    at::DataPtr real = TorchMemory::allocate(bytes);
    void* const data = real.get();
    const int64_t live = counts_->live += static_cast<int64_t>(bytes);
    if (live > counts_->peak) counts_->peak = live;
    auto block = std::make_unique<Block>(std::move(real), counts_, static_cast<int64_t>(bytes));
    return {data, block.release(), [](void* own) { delete static_cast<Block*>(own); }, at::Device(at::kCPU)};
  }
  at::DeleterFnPtr raw_deleter() const override { return nullptr; }

  // The most that there were at once since this was made.
  int64_t peak_bytes() const { return counts_->peak; }

 protected:
  void BeforeAllocation() override {}

 private:
  struct Counts {
    std::atomic<int64_t> live = 0;
    std::atomic<int64_t> peak = 0;
  };
  struct Block {  // which may outlive the allocator
    Block(at::DataPtr memory, std::shared_ptr<Counts> counted, int64_t size)
        : real(std::move(memory)), counts(std::move(counted)), bytes(size) {}
    ~Block() { counts->live -= bytes; }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    at::DataPtr real;
    std::shared_ptr<Counts> counts;
    int64_t bytes;
  };

  const std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

}  // namespace retro
