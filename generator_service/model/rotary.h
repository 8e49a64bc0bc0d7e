// Rotary positions (Su et al. 2021), half-split: of the first R dimensions of a head, dimension i < R/2 is paired with
// i + R/2 and the pair is turned by position * base^(-2i/R). The other dimensions stay.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace retro {

class Rotary {
 public:
  Rotary() = default;  // turns nothing
  // For the positions 0 ... count - 1. size: R, even.
  Rotary(int64_t size, double base, int64_t count, const at::TensorOptions& options);

  bool defined() const { return cosines_.defined(); }

  // x: [..., T, head], positions: [T] -> the same shape; x itself if nothing is to be turned.
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& positions) const;

 private:
  at::Tensor cosines_;  // [count, R / 2]
  at::Tensor sines_;    // [count, R / 2]
};

}  // namespace retro
