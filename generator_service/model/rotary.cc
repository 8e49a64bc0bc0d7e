#include "generator_service/model/rotary.h"

namespace retro {

Rotary::Rotary(int64_t size, double base, int64_t count, const at::TensorOptions& options) {
  const at::TensorOptions exact = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor exponents = at::arange(size / 2, exact) * (-2.0 / static_cast<double>(size));
  const at::Tensor angles = at::arange(count, exact).unsqueeze(1) * at::pow(base, exponents).unsqueeze(0);
  cosines_ = angles.cos().to(options);
  sines_ = angles.sin().to(options);
}

at::Tensor Rotary::operator()(const at::Tensor& x, const at::Tensor& positions) const {
  if (!defined()) return x;
  const int64_t half = cosines_.size(1);
  const at::Tensor cosines = cosines_.index_select(0, positions);  // [T, R / 2]
  const at::Tensor sines = sines_.index_select(0, positions);
  const at::Tensor first = x.narrow(-1, 0, half);
  const at::Tensor second = x.narrow(-1, half, half);
  return at::cat({first * cosines - second * sines, second * cosines + first * sines,
                  x.narrow(-1, 2 * half, x.size(-1) - 2 * half)},
                 -1);
}

}  // namespace retro
