// The norms before every part of a layer and the residuals around it (paper, section B.1, and its descendants' forms).
#pragma once

#include <ATen/ATen.h>

#include "generator_service/model/config.h"

namespace retro {

struct Norm {
  NormKind kind = NormKind::kRms;
  double eps = 0;
  at::Tensor gain;  // [width]; undefined: the identity
  at::Tensor bias;  // [width], of kLayer only
  at::Tensor gate;  // [width], of kRmsFloorGated only

  // Over the last dimension: [..., width] -> [..., width].
  at::Tensor operator()(const at::Tensor& x) const;
};

// Around a part f of a layer: x + f(norm(x)); post-norm: norm(scale x + f(x)), in which the norm before f is the
// identity.
struct Residual {
  double scale = 1.0;
  Norm norm;  // the identity but for post-norm

  // x, added: [..., width].
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& added) const;
};

}  // namespace retro
