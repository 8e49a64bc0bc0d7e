// A matrix applied to rows. It owns its weight, so that packed formats can take its place without the callers knowing.
#pragma once

#include <ATen/ATen.h>

#include <utility>

namespace retro {

class Linear {
 public:
  Linear() = default;
  explicit Linear(at::Tensor weight /* [out, in] */) : weight_(std::move(weight)) {}

  // [..., in] -> [..., out]
  at::Tensor operator()(const at::Tensor& rows) const { return at::linear(rows, weight_); }

  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor weight_;
};

}  // namespace retro
