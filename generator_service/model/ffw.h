// FFW, the piece of a layer that looks at one token at a time (paper, sections 2.4 and B.1).
#pragma once

#include <ATen/ATen.h>

#include "generator_service/model/weights.h"

namespace retro {

// W2 activation(W1 norm(x)), or gated W2 (activation(W_gate norm(x)) * W1 norm(x)): [..., width] -> [..., width].
at::Tensor Ffw(const FfwWeights& weights, const at::Tensor& x);

}  // namespace retro
