// The weights of a BERT-family encoder as plain fp32 arrays, read from safetensors. Without torch.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "retriever_service/embed/bert_config.h"

namespace retro {

struct LinearWeights {
  std::vector<float> weight;  // [outputs, inputs]
  std::vector<float> bias;    // [outputs]
};

struct NormWeights {
  std::vector<float> gamma;
  std::vector<float> beta;
};

struct BertLayerWeights {
  LinearWeights query, key, value, attention_output;  // [hidden, hidden]
  NormWeights attention_norm;
  LinearWeights intermediate;  // [intermediate, hidden]
  LinearWeights output;        // [hidden, intermediate]
  NormWeights output_norm;
};

struct BertWeights {
  std::vector<float> words;      // [vocabulary, hidden]
  std::vector<float> positions;  // [max_positions, hidden]
  std::vector<float> types;      // [token_types, hidden]
  NormWeights norm;
  std::vector<BertLayerWeights> layers;
};

// Reads config.weights_path(). Names may begin with "bert."; fp32, fp16 and bf16 are taken; tensors that the encoder
// has no use for (pooler, position_ids, heads) are left alone. NOT_FOUND for a missing file; INVALID_ARGUMENT naming
// the tensor that is missing, or whose shape is not the config's, or that holds a value that is not finite.
absl::StatusOr<BertWeights> ReadBertWeights(const BertConfig& config);

}  // namespace retro
