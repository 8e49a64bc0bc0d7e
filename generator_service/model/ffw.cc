#include "generator_service/model/ffw.h"

namespace retro {
namespace {

at::Tensor Activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kGeluErf:
      return at::gelu(x, "none");
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kRelu:
      break;
  }
  return at::relu(x);
}

}  // namespace

at::Tensor Ffw(const FfwWeights& weights, const at::Tensor& x) {
  const at::Tensor h = weights.norm(x);
  if (!weights.gate) return weights.down(Activate(weights.up(h), weights.activation));
  return weights.down(Activate((*weights.gate)(h), weights.activation) * weights.up(h));
}

}  // namespace retro
