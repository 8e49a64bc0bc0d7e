// BERT by the library's own operators, on any of its devices: what runs on a GPU. (On the CPU it is slower than
// BertCpu, and serves tests as a second opinion.) Texts are padded to the longest of the batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "retriever_service/embed/bert_config.h"
#include "retriever_service/embed/bert_forward.h"
#include "retriever_service/embed/bert_weights.h"

namespace retro {

class BertDevice : public BertForward {
 public:
  // `half`: weights and activations in fp16; norms, pooling and the result stay fp32. Throws c10::Error.
  BertDevice(const BertConfig& config, const BertWeights& weights, at::Device device, bool half);

  void Run(std::span<const std::span<const TokenId>> sequences, float* out) override;

 private:
  struct Linear {
    at::Tensor weight, bias;
  };
  struct Norm {
    at::Tensor gamma, beta;
  };
  struct Layer {
    Linear qkv, attention_output, intermediate, output;
    Norm attention_norm, output_norm;
  };

  at::Tensor Upload(const std::vector<float>& values, at::IntArrayRef shape, at::ScalarType type) const;
  Linear UploadLinear(const LinearWeights& linear) const;
  Norm UploadNorm(const NormWeights& norm) const;
  Layer UploadLayer(const BertLayerWeights& layer) const;

  at::Tensor Normalise(const at::Tensor& x, const Norm& norm) const;
  at::Tensor Activate(const at::Tensor& x) const;
  at::Tensor RunLayer(const Layer& layer, const at::Tensor& x, const at::Tensor& mask) const;
  at::Tensor PoolRows(const at::Tensor& x, const at::Tensor& mask) const;

  const BertConfig config_;
  const at::Device device_;
  const at::ScalarType type_;
  at::Tensor words_, positions_, token_type_;
  Norm norm_;
  std::vector<Layer> layers_;
};

}  // namespace retro
