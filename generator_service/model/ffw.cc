#include "generator_service/model/ffw.h"

#include "generator_service/model/activation_kernel.h"

namespace retro {
namespace {

// x is the caller's alone.
at::Tensor Activate(at::Tensor x, Activation activation) {
  if (x.is_cpu() && x.scalar_type() == at::kFloat && !x.requires_grad()) {
    ActivateInPlace(activation, x.data_ptr<float>(), x.numel());
    return x;
  }
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
