// The weights of a model, by the part that uses them: the weight table's names turned into members.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "generator_service/model/config.h"
#include "generator_service/model/embedding.h"
#include "generator_service/model/linear.h"
#include "generator_service/model/norm.h"
#include "generator_service/model/rotary.h"
#include "generator_service/model/weight_placement.h"

namespace retro {

// Rows of sinusoids by (count of distances, width), all of one dtype and device; see PositionTable.
using SinusoidCache = std::map<std::pair<int64_t, int64_t>, at::Tensor>;

// One attention and the norm before it. Of the position schemes' members only those of the config's scheme are defined.
struct AttentionWeights {
  Norm norm;  // over the query's width
  Residual residual;
  Linear query, key, value;  // to [heads * head]
  Linear output;             // to [query width]
  int64_t heads = 0;
  double scale = 1.0;  // of the logits, before `buckets`

  at::Tensor content_bias;       // u [heads, 1, head]; undefined without position_biases
  at::Tensor position_bias;      // v [heads, 1, head]; likewise
  at::Tensor positions;          // W_R s(dist) [heads, distances, head], distances falling: see attention.h
  int64_t largest_distance = 0;  // of `positions`
  at::Tensor buckets;            // [buckets, heads]: bias of the distances key - query from lowest_bucket on
  int64_t lowest_bucket = 0;
  Rotary rotary;

  at::Tensor null_key;    // [heads, 1, head]; undefined: none
  at::Tensor null_value;  // [heads, 1, head]
};

struct FfwWeights {
  Norm norm;
  Residual residual;
  std::optional<Linear> gate;
  Linear up, down;
  Activation activation = Activation::kGeluTanh;
};

struct LayerWeights {
  AttentionWeights attention;
  std::optional<AttentionWeights> cca;
  FfwWeights ffw;
};

struct EncoderWeights {
  Embedding embedding;     // [V, d']
  at::Tensor positions;    // [r, d'], added to the embeddings; undefined: none
  Norm conditioning_norm;  // if config.conditioning_norm
  std::vector<LayerWeights> layers;
  Norm final_norm;                   // if config.encoder_final_norm
  std::optional<Linear> projection;  // to d
};

struct ModelWeights {
  Embedding embedding;   // [V, d], or of config.embedding_width
  at::Tensor positions;  // [n, ...], added to the embeddings; undefined: none
  std::optional<Linear> embedding_projection;
  std::vector<LayerWeights> layers;
  Norm final_norm;  // if config.final_norm
  Linear readout;   // [V, d]; the embedding itself where tied
  EncoderWeights encoder;
  // The reference on the CPU: each row and each chunk attends by itself, so that with Transformer-XL's positions a
  // sequence's results are the same to the bit alone and in any batch, in pieces of any size.
  bool apart = false;
};

// Every weight of the table must be in `weights` with its shape (INVALID_ARGUMENT naming the first that is missing,
// misshapen or unknown). The result shares the tensors, except that the position matrices W_R give way to their tables;
// differentiable with respect to them. `sinusoids`, which may be null, keeps what only the config decides for the next
// call with weights of the same dtype and device.
absl::StatusOr<ModelWeights> BindWeights(const ModelConfig& config, const WeightMap& weights,
                                         SinusoidCache* sinusoids = nullptr);

// The same weights for inference on `device`. They must be on the CPU; the result shares nothing with them.
absl::StatusOr<ModelWeights> BindWeights(const ModelConfig& config, const WeightMap& weights, const at::Device& device,
                                         ModelNumbers numbers);

}  // namespace retro
