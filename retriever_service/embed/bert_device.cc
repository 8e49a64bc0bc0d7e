#include "retriever_service/embed/bert_device.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <limits>

namespace retro {
BertDevice::BertDevice(const BertConfig& config, const BertWeights& weights, at::Device device, bool half)
    : config_(config), device_(device), type_(half ? at::kHalf : at::kFloat) {
  const c10::InferenceMode inference;
  const int64_t hidden = config.hidden_size;
  words_ = Upload(weights.words, {config.vocabulary_size, hidden}, at::kFloat);
  positions_ = Upload(weights.positions, {config.max_positions, hidden}, at::kFloat);
  token_type_ = Upload(weights.types, {config.token_types, hidden}, at::kFloat).select(0, 0);
  norm_ = UploadNorm(weights.norm);
  for (const BertLayerWeights& layer : weights.layers) layers_.push_back(UploadLayer(layer));
}

at::Tensor BertDevice::Upload(const std::vector<float>& values, at::IntArrayRef shape, at::ScalarType type) const {
  const at::Tensor view = at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat);
  return view.to(device_, type, /*non_blocking=*/false, /*copy=*/true);
}

BertDevice::Linear BertDevice::UploadLinear(const LinearWeights& linear) const {
  const int64_t outputs = static_cast<int64_t>(linear.bias.size());
  const int64_t inputs = static_cast<int64_t>(linear.weight.size()) / outputs;
  return {Upload(linear.weight, {outputs, inputs}, type_), Upload(linear.bias, {outputs}, type_)};
}

BertDevice::Norm BertDevice::UploadNorm(const NormWeights& norm) const {
  const int64_t size = static_cast<int64_t>(norm.gamma.size());
  return {Upload(norm.gamma, {size}, at::kFloat), Upload(norm.beta, {size}, at::kFloat)};
}

BertDevice::Layer BertDevice::UploadLayer(const BertLayerWeights& layer) const {
  const Linear parts[] = {UploadLinear(layer.query), UploadLinear(layer.key), UploadLinear(layer.value)};
  Layer result;
  result.qkv.weight = at::cat({parts[0].weight, parts[1].weight, parts[2].weight});
  result.qkv.bias = at::cat({parts[0].bias, parts[1].bias, parts[2].bias});
  result.attention_output = UploadLinear(layer.attention_output);
  result.intermediate = UploadLinear(layer.intermediate);
  result.output = UploadLinear(layer.output);
  result.attention_norm = UploadNorm(layer.attention_norm);
  result.output_norm = UploadNorm(layer.output_norm);
  return result;
}

void BertDevice::Run(std::span<const std::span<const TokenId>> sequences, float* out) {
  const c10::InferenceMode inference;
  const int64_t count = static_cast<int64_t>(sequences.size());
  int64_t longest = 0;
  for (const auto sequence : sequences) longest = std::max<int64_t>(longest, static_cast<int64_t>(sequence.size()));
  at::Tensor ids = at::zeros({count, longest}, at::kInt);
  at::Tensor lengths = at::empty({count, 1}, at::kInt);
  for (int64_t i = 0; i < count; ++i) {
    std::copy(sequences[i].begin(), sequences[i].end(), ids.data_ptr<int32_t>() + i * longest);
    lengths.data_ptr<int32_t>()[i] = static_cast<int32_t>(sequences[i].size());
  }
  ids = ids.to(device_);
  lengths = lengths.to(device_);
  const at::Tensor mask = at::arange(longest, ids.options()).unsqueeze(0) < lengths;  // [count, longest], true: a token
  at::Tensor x = at::embedding(words_, ids) + positions_.slice(0, 0, longest) + token_type_;
  x = Normalise(x, norm_);
  const at::Tensor attention_mask = mask.unsqueeze(1).unsqueeze(1);
  for (const Layer& layer : layers_) x = RunLayer(layer, x, attention_mask);
  const at::Tensor vectors = PoolRows(x.to(at::kFloat), mask).to(at::kCPU).contiguous();
  std::copy_n(vectors.data_ptr<float>(), vectors.numel(), out);
}

at::Tensor BertDevice::Normalise(const at::Tensor& x, const Norm& norm) const {
  return at::layer_norm(x.to(at::kFloat), {config_.hidden_size}, norm.gamma, norm.beta, config_.norm_epsilon).to(type_);
}

at::Tensor BertDevice::Activate(const at::Tensor& x) const {
  switch (config_.activation) {
    case BertActivation::kGelu:
      return at::gelu(x);
    case BertActivation::kGeluTanh:
      return at::gelu(x, "tanh");
    case BertActivation::kRelu:
      return at::relu(x);
  }
  return x;
}

at::Tensor BertDevice::RunLayer(const Layer& layer, const at::Tensor& x, const at::Tensor& mask) const {
  const int64_t count = x.size(0);
  const int64_t length = x.size(1);
  const at::Tensor qkv = at::linear(x, layer.qkv.weight, layer.qkv.bias)
                             .view({count, length, 3, config_.heads, config_.head_size()})
                             .permute({2, 0, 3, 1, 4});
  const at::Tensor context = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], mask)
                                 .transpose(1, 2)
                                 .reshape({count, length, config_.hidden_size});
  const at::Tensor attended = at::linear(context, layer.attention_output.weight, layer.attention_output.bias);
  const at::Tensor middle = Normalise(x + attended, layer.attention_norm);
  const at::Tensor inner = Activate(at::linear(middle, layer.intermediate.weight, layer.intermediate.bias));
  return Normalise(middle + at::linear(inner, layer.output.weight, layer.output.bias), layer.output_norm);
}

at::Tensor BertDevice::PoolRows(const at::Tensor& x, const at::Tensor& mask) const {
  const at::Tensor tokens = mask.unsqueeze(-1);
  at::Tensor pooled;
  if (config_.pooling == BertPooling::kCls) {
    pooled = x.select(1, 0);
  } else if (config_.pooling == BertPooling::kMean) {
    pooled = (x * tokens).sum(1) / tokens.sum(1);
  } else {
    pooled = x.masked_fill(tokens.logical_not(), -std::numeric_limits<float>::infinity()).amax(1);
  }
  if (!config_.normalise) return pooled;
  return pooled / pooled.norm(2, 1, /*keepdim=*/true).clamp_min(std::numeric_limits<float>::min());
}

}  // namespace retro
