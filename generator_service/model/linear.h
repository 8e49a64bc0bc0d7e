// A matrix applied to rows. It owns its weight, so that packed formats can take its place without the callers knowing.
#pragma once

#include <ATen/ATen.h>

#include <utility>

namespace retro {

class Linear {
 public:
  Linear() = default;
  // weight: [out, in]; bias: [out], or undefined.
  explicit Linear(at::Tensor weight, at::Tensor bias = {}) : weight_(std::move(weight)), bias_(std::move(bias)) {}

  // [..., in] -> [..., out]
  at::Tensor operator()(const at::Tensor& rows) const { return at::linear(rows, weight_, bias_); }

  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

}  // namespace retro
