// y = x W^T with a weight that was packed once for one of the library's CPU kernels.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/native/quantized/PackedParams.h>

namespace retro {

enum class WeightFormat {
  kFp32,        // oneDNN, blocked fp32
  kFp16Packed,  // FBGEMM: fp16 weights, fp32 activations and sums; half the memory, and no slower at any number of rows
};

// Immutable after construction. Throws c10::Error.
class PackedLinear {
 public:
  // `weight`: fp32 [outputs, inputs], contiguous.
  PackedLinear(const at::Tensor& weight, WeightFormat format);

  // `x`: fp32 [rows, inputs], contiguous. Runs on the caller's thread inside a worker team.
  at::Tensor Apply(const at::Tensor& x) const;

 private:
  c10::intrusive_ptr<LinearPackedParamsBase> fp16_;  // null for fp32
  at::Tensor fp32_;                                  // oneDNN's own layout; undefined for fp16
};

}  // namespace retro
