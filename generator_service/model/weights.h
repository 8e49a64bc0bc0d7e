// The weights of a model, by the part that uses them: the weight table's names turned into members.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "generator_service/model/config.h"
#include "generator_service/model/linear.h"

namespace retro {

// By the names of the weight table.
using WeightMap = std::map<std::string, at::Tensor>;

// One attention with relative positions, and the norm before it.
struct AttentionWeights {
  at::Tensor norm;           // [query width]
  Linear query, key, value;  // to [heads * head]
  Linear output;             // to [query width]
  at::Tensor content_bias;   // u [heads, 1, head]; undefined without position_biases
  at::Tensor position_bias;  // v [heads, 1, head]; likewise
  at::Tensor positions;      // W_R s(dist) [heads, distances, head], distances falling: see attention.h
  int64_t heads = 0;
};

struct FfwWeights {
  at::Tensor norm;
  Linear up, down;
  Activation activation = Activation::kGeluTanh;
};

struct LayerWeights {
  AttentionWeights attention;
  std::optional<AttentionWeights> cca;
  FfwWeights ffw;
};

struct EncoderWeights {
  at::Tensor embedding;          // [V, d']
  at::Tensor conditioning_norm;  // undefined unless config.conditioning_norm
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;  // undefined unless config.encoder_final_norm
};

struct ModelWeights {
  at::Tensor embedding;  // [V, d]
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;
  Linear readout;  // [V, d]; the embedding itself where tied
  EncoderWeights encoder;
};

// Every weight of the table must be in `weights` with its shape (INVALID_ARGUMENT naming the first that is missing,
// misshapen or unknown). The result shares the tensors, except that the position matrices W_R give way to their tables;
// differentiable with respect to them.
absl::StatusOr<ModelWeights> BindWeights(const ModelConfig& config, const WeightMap& weights);

}  // namespace retro
