#include "generator_service/model/rotary.h"

namespace retro {

Rotary::Rotary(int64_t size, double base, const at::Device& device) {
  const at::TensorOptions exact = at::TensorOptions().dtype(at::kDouble).device(device);
  frequencies_ = at::pow(base, at::arange(size / 2, exact) * (-2.0 / static_cast<double>(size)));
}

at::Tensor Rotary::operator()(const at::Tensor& x, const at::Tensor& positions) const {
  if (!defined()) return x;
  const at::Tensor angles = positions.unsqueeze(1) * frequencies_;  // [T, R / 2]
  const at::Tensor cosines = angles.cos().to(x.scalar_type());
  const at::Tensor sines = angles.sin().to(x.scalar_type());
  const int64_t half = frequencies_.size(0);
  const at::Tensor first = x.narrow(-1, 0, half);
  const at::Tensor second = x.narrow(-1, half, half);
  return at::cat({first * cosines - second * sines, second * cosines + first * sines,
                  x.narrow(-1, 2 * half, x.size(-1) - 2 * half)},
                 -1);
}

}  // namespace retro
