#include "generator_service/model/norm.h"

namespace retro {

at::Tensor Norm::operator()(const at::Tensor& x) const {
  if (!gain.defined()) return x;
  const auto root_mean_square = [&] { return x.square().mean(-1, /*keepdim=*/true).sqrt(); };
  switch (kind) {
    case NormKind::kRms:
      return at::rms_norm(x, gain.sizes(), gain, eps);
    case NormKind::kRmsEpsOutside:
      return gain * (x / (root_mean_square() + eps));
    case NormKind::kRmsFloor:
      return gain * (x / root_mean_square().clamp_min(eps));
    case NormKind::kRmsFloorGated:
      return gain * (x / root_mean_square().clamp_min(eps)) * (gate * x).sigmoid();
    case NormKind::kLayer:
      break;
  }
  return at::layer_norm(x, gain.sizes(), gain, bias, eps);
}

at::Tensor Residual::operator()(const at::Tensor& x, const at::Tensor& added) const {
  return norm(scale == 1.0 ? x + added : x * scale + added);
}

}  // namespace retro
