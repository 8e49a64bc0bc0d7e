// The number formats that a model computes in.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "generator_service/model/matrix_kernels.h"

namespace retro {

enum class ModelNumbers {
  kFp32,  // the reference: with Transformer-XL's positions every result is the same to the bit alone and in any batch
  kFp16,  // CPU: weights, position tables and caches in fp16, activations and sums in fp32
  kInt8,  // CPU: matrices in int8 with a scale for each output, all else as kFp16
  kBf16,  // CUDA: weights, activations and caches in bf16; norms, softmax, the residual stream and logits in fp32
};

std::string_view ModelNumbersName(ModelNumbers numbers);  // "fp32", "fp16", "int8", "bf16"
std::vector<std::string> ModelNumbersNames();
// INVALID_ARGUMENT listing the names.
absl::StatusOr<ModelNumbers> ModelNumbersFromName(std::string_view name);
// What a model is served with where nothing else is asked for: fp16 on the CPU, bf16 elsewhere.
ModelNumbers ServingNumbers(const std::string& device);

// How the matrices are packed on a CPU; nothing for bf16, whose products are torch's.
std::optional<MatrixFormat> PackedFormat(ModelNumbers numbers);

}  // namespace retro
