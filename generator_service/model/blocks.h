// The two pieces of a layer that know no positions: RMSNorm and FFW (paper, sections 2.4 and B.1).
#pragma once

#include <ATen/ATen.h>

#include "generator_service/model/weights.h"

namespace retro {

// gain * x / sqrt(mean(x^2) + eps) over the last dimension.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& gain, double eps);

// W2 activation(W1 RmsNorm(x)): [..., width] -> [..., width].
at::Tensor Ffw(const FfwWeights& weights, const at::Tensor& x, double eps);

}  // namespace retro
