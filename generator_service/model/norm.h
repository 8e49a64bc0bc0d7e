// The norms that stand before every part of a layer (paper, section B.1, and its descendants' forms).
#pragma once

#include <ATen/ATen.h>

#include "generator_service/model/config.h"

namespace retro {

struct Norm {
  NormKind kind = NormKind::kRms;
  double eps = 0;
  at::Tensor gain;  // [width]
  at::Tensor bias;  // [width], of kLayer only

  // Over the last dimension: [..., width] -> [..., width].
  at::Tensor operator()(const at::Tensor& x) const;
};

}  // namespace retro
