// CUDA graphs: a fixed sequence of kernels, recorded once and from then on launched as one.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "absl/status/statusor.h"

namespace retro {

// Holds the device memory of what happens in between. One thread, that of the capture.
class CudaGraph {
 public:
  virtual ~CudaGraph() = default;
  // Launches it on the device's current stream and does not wait. Throws c10::Error.
  virtual void Replay() = 0;
};

// Records what `work` computes on `device`, where it is run twice: once to warm up, once to be recorded. It must give
// the same when it is run again, allocate nothing that outlives it, wait for nothing, and read and write what lies
// outside in tensors that stay where they are. Graphs share their memory: what one leaves in it, another overwrites.
// FAILED_PRECONDITION where libretro_cuda_graph.so, which is linked to CUDA as the programs are not, is neither beside
// the program, in the folders bin and lib beside the program's own, nor where the system looks; INTERNAL with torch's
// words if something in `work` cannot be recorded. After an error the device computes as before.
absl::StatusOr<std::unique_ptr<CudaGraph>> CaptureCudaGraph(const at::Device& device,
                                                            const std::function<void()>& work);

}  // namespace retro
