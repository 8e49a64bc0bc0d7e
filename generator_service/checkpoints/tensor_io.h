// Tensors of safetensors files as torch's, with the checks that every reader of weights wants.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/safetensors/safetensors.h"

namespace retro {

// A copy of the tensor as fp32 on the CPU. F32, F64, F16 and BF16 only; NOT_FOUND if there is none of this name;
// INVALID_ARGUMENT naming file and tensor for another dtype, a shape other than `shape`, and NaN or infinity.
absl::StatusOr<at::Tensor> ReadWeight(const SafetensorsFile& file, const std::string& name,
                                      std::span<const int64_t> shape);

// A copy as fp64 (floating point) or int64 (integers), of any shape; for reference data.
absl::StatusOr<at::Tensor> ReadReference(const SafetensorsFile& file, const std::string& name);

// fp32 tensors, written as they are. The tensors are made contiguous on the CPU one after the other, all held until the
// end.
absl::Status WriteWeights(const std::string& path, const std::map<std::string, at::Tensor>& weights,
                          const std::map<std::string, std::string>& metadata);

}  // namespace retro
