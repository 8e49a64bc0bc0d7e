#include "generator_service/model/blocks.h"

namespace retro {
namespace {

at::Tensor Activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kGeluErf:
      return at::gelu(x, "none");
    case Activation::kRelu:
      break;
  }
  return at::relu(x);
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& gain, double eps) {
  return at::rms_norm(x, gain.sizes(), gain, eps);
}

at::Tensor Ffw(const FfwWeights& weights, const at::Tensor& x, double eps) {
  return weights.down(Activate(weights.up(RmsNorm(x, weights.norm, eps)), weights.activation));
}

}  // namespace retro
