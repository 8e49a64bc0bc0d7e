#include "generator_service/model/embedding.h"

namespace retro {

at::Tensor Embedding::operator()(const at::Tensor& tokens) const {
  if (packed_ == nullptr) {
    const at::Tensor rows = at::embedding(weight_, tokens);
    return rows.scalar_type() == at::kBFloat16 ? rows.to(at::kFloat) : rows;
  }
  std::vector<int64_t> shape = tokens.sizes().vec();
  shape.push_back(packed_->inputs());
  at::Tensor rows = at::empty(shape, at::kFloat);
  const at::Tensor flat = tokens.contiguous();
  const int64_t* ids = flat.const_data_ptr<int64_t>();
  float* to = rows.data_ptr<float>();
  for (int64_t i = 0; i < flat.numel(); ++i, to += packed_->inputs()) packed_->ReadRow(ids[i], to);
  return rows;
}

Linear Embedding::Tied(at::Tensor bias) const {
  return packed_ == nullptr ? Linear(weight_, std::move(bias)) : Linear(packed_, std::move(bias));
}

}  // namespace retro
