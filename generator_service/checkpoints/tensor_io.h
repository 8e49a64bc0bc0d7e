// Tensors of safetensors files as torch's, with the checks that every reader of weights wants.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/safetensors/safetensors.h"

namespace retro {

// A copy of the tensor as fp32 on the CPU. F32, F64, F16 and BF16 only; NOT_FOUND if there is none of this name;
// INVALID_ARGUMENT naming file and tensor for another dtype, a shape other than `shape`, and NaN or infinity.
absl::StatusOr<at::Tensor> ReadWeight(const SafetensorsFile& file, const std::string& name,
                                      std::span<const int64_t> shape);

// As ReadWeight, but of any values, in the file's own dtype, and without a copy (but for a tensor that lies unaligned):
// it must not be written to, and keeps the file mapped.
absl::StatusOr<at::Tensor> MapWeight(const std::shared_ptr<const SafetensorsFile>& file, const std::string& name,
                                     std::span<const int64_t> shape);

// A copy as fp32 on the CPU, of any shape and values. Otherwise as ReadWeight.
absl::StatusOr<at::Tensor> ReadFloats(const SafetensorsFile& file, const std::string& name);

// INVALID_ARGUMENT for NaN or infinity in an fp32 tensor.
absl::Status CheckFinite(const at::Tensor& weight);
// The same for the bytes of floating-point numbers, which need not be aligned, as fp32: for fp64 too large for it too.
absl::Status CheckFinite(std::string_view bytes, DType dtype);

// A copy as fp64 (floating point) or int64 (integers), of any shape; for reference data.
absl::StatusOr<at::Tensor> ReadReference(const SafetensorsFile& file, const std::string& name);

// Replaces `path` by these tensors as fp32.
absl::Status WriteWeights(const std::string& path, const std::map<std::string, at::Tensor>& weights,
                          const std::map<std::string, std::string>& metadata);

// A tensor by name, when it is asked for.
using TensorGiver = std::function<absl::StatusOr<at::Tensor>(const std::string& name)>;

// The same, asking for one tensor after the other: no more than one is held.
absl::Status WriteWeights(const std::string& path, const std::map<std::string, std::vector<int64_t>>& shapes,
                          const std::map<std::string, std::string>& metadata, const TensorGiver& give);

}  // namespace retro
