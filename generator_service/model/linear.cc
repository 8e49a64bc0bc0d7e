#include "generator_service/model/linear.h"

namespace retro {

at::Tensor Linear::operator()(const at::Tensor& rows) const {
  if (packed_ == nullptr) {
    const at::ScalarType type = weight_.scalar_type();
    return at::linear(rows.to(type), weight_, bias_.defined() ? bias_.to(type) : bias_);
  }
  const at::Tensor x = rows.contiguous();
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = packed_->outputs();
  at::Tensor y = at::empty(shape, x.options());
  packed_->Multiply(x.const_data_ptr<float>(), x.numel() / x.size(-1), y.data_ptr<float>());
  return bias_.defined() ? y.add_(bias_) : y;
}

at::Tensor Linear::ToFloat(const at::Tensor& rows) const {
  if (packed_ != nullptr || weight_.scalar_type() != at::kBFloat16) return (*this)(rows);
  const at::Tensor flat = rows.to(at::kBFloat16).flatten(0, -2);
  const at::Tensor y = weight_.is_cuda() ? at::mm(flat, weight_.t(), at::kFloat)
                                         : at::mm(flat.to(at::kFloat), weight_.t().to(at::kFloat));
  std::vector<int64_t> shape = rows.sizes().vec();
  shape.back() = weight_.size(0);
  return (bias_.defined() ? y + bias_ : y).view(shape);
}

}  // namespace retro
