// Rotary positions (Su et al. 2021), half-split: of the first R dimensions of a head, dimension i < R/2 is paired with
// i + R/2 and the pair is turned by position * base^(-2i/R). The other dimensions stay.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace retro {

class Rotary {
 public:
  Rotary() = default;  // turns nothing
  // size: R, even.
  Rotary(int64_t size, double base, const at::Device& device);

  bool defined() const { return frequencies_.defined(); }

  // x: [..., T, head], positions: [T], of any size -> the same shape; x itself if nothing is to be turned.
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& positions) const;

 private:
  at::Tensor frequencies_;  // [R / 2], fp64: angles of far positions are exact
};

}  // namespace retro
