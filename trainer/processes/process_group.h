// Several processes that train one model (data parallel): each computes the gradients of its share of a step's windows,
// and all take the same step with their sum.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace retro {

// One thread at a time.
class ProcessGroup {
 public:
  ProcessGroup(int rank, int size) : rank_(rank), size_(size) {}
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;
  virtual ~ProcessGroup() = default;  // waits for the others, unless an exception is on its way

  int rank() const { return rank_; }
  int size() const { return size_; }

  // Each tensor becomes, in place, the sum of what the processes hold in its place: to the bit the same in all of them.
  // All processes call it in the same order with the same shapes. Contiguous, fp32, fp64 or int64, on the device of the
  // group. What goes wrong is thrown, as torch throws it.
  virtual void Sum(const std::vector<at::Tensor>& tensors) = 0;

  // Says why on standard error and ends the processes of the group, this one at once.
  [[noreturn]] virtual void Abort(const std::string& reason) = 0;

  // The value of each process, by rank. Waits for the device.
  std::vector<int64_t> Gather(int64_t value);

 protected:
  virtual at::Device device() const = 0;
  // "rank 1 of 2: reason"
  std::string Said(const std::string& reason) const;

 private:
  const int rank_;
  const int size_;
};

// What a process computes on, and with whom.
struct ProcessPlace {
  std::string device;                   // `device` of this process: that of several GPUs which it is to take
  std::unique_ptr<ProcessGroup> group;  // null: it is alone
};

// The group that the launcher's environment variables tell of: mpirun's on the CPU (MPI), torchrun's (RANK, WORLD_SIZE,
// LOCAL_RANK, MASTER_ADDR, MASTER_PORT) on CUDA (NCCL). FAILED_PRECONDITION, saying how to start, for a launcher that
// does not fit the device, or where MPI or NCCL is not to be had.
absl::StatusOr<ProcessPlace> OpenProcessPlace(const std::string& device);

}  // namespace retro
