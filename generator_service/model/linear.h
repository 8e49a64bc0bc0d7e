// A matrix applied to rows, whatever its numbers: a tensor, for training and for devices whose products are torch's, or
// packed for the CPU.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <utility>

#include "generator_service/model/packed_matrix.h"

namespace retro {

// bias: [out], or undefined.
class Linear {
 public:
  Linear() = default;
  // weight: [out, in]. Differentiable.
  explicit Linear(at::Tensor weight, at::Tensor bias = {}) : weight_(std::move(weight)), bias_(std::move(bias)) {}
  explicit Linear(std::shared_ptr<const PackedMatrix> packed, at::Tensor bias = {})
      : packed_(std::move(packed)), bias_(std::move(bias)) {}

  // [..., in] -> [..., out], of the weight's dtype; packed: fp32.
  at::Tensor operator()(const at::Tensor& rows) const;
  // The same as fp32, or fp64 of an fp64 weight: a bf16 weight's sums are not rounded to bf16.
  at::Tensor ToFloat(const at::Tensor& rows) const;

 private:
  at::Tensor weight_;
  std::shared_ptr<const PackedMatrix> packed_;
  at::Tensor bias_;
};

}  // namespace retro
