// The devices that torch computes on, by the names that users give them.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/statusor.h"

namespace retro {

// "cpu", "cuda" (the first GPU) or "cuda:N". For CUDA this loads libtorch_cuda.so into the process: programs are not
// linked to it, so that they run on a machine without a GPU too. INVALID_ARGUMENT for another name,
// FAILED_PRECONDITION, saying what is missing, where CUDA or that GPU is not to be had. Any thread.
absl::StatusOr<at::Device> OpenDevice(const std::string& name);

}  // namespace retro
