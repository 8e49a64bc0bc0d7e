// A BERT-family embedder's folder, as sentence-transformers writes it:
//   config.json                         the network's sizes
//   model.safetensors, vocab.txt        weights, WordPiece vocabulary (with tokenizer_config.json)
//   modules.json, 1_Pooling/config.json how the last layer becomes one vector; without modules.json: the mean
//   sentence_bert_config.json           the maximal length; without it: the network's positions
//   config_sentence_transformers.json   "prompts": prefixes for "query" and "passage" (or "document"); without: none
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace retro {

enum class BertActivation { kGelu, kGeluTanh, kRelu };
enum class BertPooling { kCls, kMean, kMax };

struct BertConfig {
  std::string folder;

  // The network (Devlin et al. 2019, section 3).
  int hidden_size = 0;
  int layers = 0;
  int heads = 0;
  int intermediate_size = 0;
  int max_positions = 0;
  int token_types = 0;
  int vocabulary_size = 0;
  float norm_epsilon = 1e-12f;
  BertActivation activation = BertActivation::kGelu;

  // From the last layer to a vector (Reimers & Gurevych 2019, section 3).
  BertPooling pooling = BertPooling::kMean;
  bool normalise = false;  // to unit length
  int max_tokens = 0;      // [CLS] and [SEP] included
  std::string query_prefix;
  std::string passage_prefix;

  int head_size() const { return hidden_size / heads; }
  std::string weights_path() const { return folder + "/model.safetensors"; }
  std::string vocabulary_path() const { return folder + "/vocab.txt"; }
};

// NOT_FOUND if the folder or its config.json is missing; INVALID_ARGUMENT, naming file and key, for values that are
// malformed or that this implementation has no code for (relative positions, a dense layer behind the pooling, ...).
absl::StatusOr<BertConfig> ReadBertConfig(const std::string& folder);

}  // namespace retro
