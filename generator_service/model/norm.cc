#include "generator_service/model/norm.h"

#include "generator_service/model/norm_kernel.h"

namespace retro {
namespace {

// For inference on the CPU.
bool HasKernel(const at::Tensor& x, const at::Tensor& gain) {
  const auto is_plain = [](const at::Tensor& t) {
    return t.is_cpu() && t.scalar_type() == at::kFloat && !t.requires_grad();
  };
  return is_plain(x) && is_plain(gain) && x.size(-1) == gain.numel();
}

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& gain, double eps) {
  if (!HasKernel(x, gain)) return at::rms_norm(x, gain.sizes(), gain, eps);
  const at::Tensor rows = x.contiguous();
  at::Tensor normed = at::empty_like(rows);
  RmsNormRows(rows.const_data_ptr<float>(), gain.const_data_ptr<float>(), static_cast<float>(eps),
              rows.numel() / gain.numel(), gain.numel(), normed.data_ptr<float>());
  return normed;
}

}  // namespace

at::Tensor Norm::operator()(const at::Tensor& x) const {
  if (!gain.defined()) return x;
  const auto root_mean_square = [&] { return x.square().mean(-1, /*keepdim=*/true).sqrt(); };
  switch (kind) {
    case NormKind::kRms:
      return RmsNorm(x, gain, eps);
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
