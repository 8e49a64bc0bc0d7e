// Torch's memory on the CPU, of which a test decides what becomes of each allocation.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <cstddef>
#include <cstdint>

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

}  // namespace retro
