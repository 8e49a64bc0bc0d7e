#include "retriever_service/embed/bert_config.h"

#include <filesystem>
#include <limits>
#include <optional>

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

using Json = nlohmann::json;

constexpr int kSizeMax = 1 << 24;  // no size of a BERT comes near; keeps products of two in 64 bits

absl::Status Malformed(const std::string& path, std::string_view what) {
  return absl::InvalidArgumentError(StrCat(path, ": ", what));
}

absl::StatusOr<Json> ReadJson(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  Json json = Json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return Malformed(path, "is not JSON; fetch the model's folder again");
  return json;
}

// Null if there is no such file.
absl::StatusOr<Json> ReadOptionalJson(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return Json();
  return ReadJson(path);
}

// config.json, read key by key; the first error is kept.
class Fields {
 public:
  Fields(std::string path, Json json) : path_(std::move(path)), json_(std::move(json)) {
    if (!json_.is_object()) Fail("is not a JSON object");
  }

  int Size(const char* key) {
    const auto found = json_.find(key);
    if (found == json_.end() || !found->is_number_integer() || *found <= 0 || *found > kSizeMax) {
      Fail(StrCat("\"", key, "\" must be a whole number from 1 to ", kSizeMax));
      return 1;
    }
    return found->get<int>();
  }

  float Number(const char* key, float otherwise) {
    const auto found = json_.find(key);
    if (found == json_.end()) return otherwise;
    if (!found->is_number()) Fail(StrCat("\"", key, "\" must be a number"));
    return found->is_number() ? found->get<float>() : otherwise;
  }

  std::string Text(const char* key, const char* otherwise) {
    const auto found = json_.find(key);
    if (found == json_.end() || found->is_null()) return otherwise;
    if (!found->is_string()) Fail(StrCat("\"", key, "\" must be a string"));
    return found->is_string() ? found->get<std::string>() : otherwise;
  }

  void Fail(std::string_view what) {
    if (status_.ok()) status_ = Malformed(path_, what);
  }
  const absl::Status& status() const { return status_; }

 private:
  std::string path_;
  Json json_;
  absl::Status status_;
};

std::optional<BertActivation> ActivationFromName(const std::string& name) {
  if (name == "gelu") return BertActivation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return BertActivation::kGeluTanh;
  if (name == "relu") return BertActivation::kRelu;
  return std::nullopt;
}

absl::Status ReadNetwork(BertConfig& config) {
  const std::string path = config.folder + "/config.json";
  RETRO_ASSIGN_OR_RETURN(Json json, ReadJson(path));
  Fields fields(path, std::move(json));
  config.hidden_size = fields.Size("hidden_size");
  config.layers = fields.Size("num_hidden_layers");
  config.heads = fields.Size("num_attention_heads");
  config.intermediate_size = fields.Size("intermediate_size");
  config.max_positions = fields.Size("max_position_embeddings");
  config.token_types = fields.Size("type_vocab_size");
  config.vocabulary_size = fields.Size("vocab_size");
  config.norm_epsilon = fields.Number("layer_norm_eps", config.norm_epsilon);

  if (const std::string type = fields.Text("model_type", "bert"); type != "bert") {
    fields.Fail(StrCat("model_type \"", type, "\" is not supported, only \"bert\" is"));
  }
  if (const std::string positions = fields.Text("position_embedding_type", "absolute"); positions != "absolute") {
    fields.Fail(StrCat("position_embedding_type \"", positions, "\" is not supported, only \"absolute\" is"));
  }
  const std::string activation = fields.Text("hidden_act", "gelu");
  if (const auto known = ActivationFromName(activation)) {
    config.activation = *known;
  } else {
    fields.Fail(StrCat("hidden_act \"", activation, "\" is not supported; gelu, gelu_new and relu are"));
  }
  if (config.hidden_size % config.heads != 0) {
    fields.Fail(StrCat("hidden_size ", config.hidden_size, " is not a multiple of num_attention_heads ", config.heads));
  }
  return fields.status();
}

absl::Status ReadPooling(const std::string& path, BertConfig& config) {
  RETRO_ASSIGN_OR_RETURN(const Json json, ReadOptionalJson(path));
  if (!json.is_object()) return absl::OkStatus();
  int chosen = 0;
  for (const auto& [key, value] : json.items()) {
    if (key.rfind("pooling_mode_", 0) != 0 || value != true) continue;
    ++chosen;
    if (key == "pooling_mode_cls_token") {
      config.pooling = BertPooling::kCls;
    } else if (key == "pooling_mode_mean_tokens") {
      config.pooling = BertPooling::kMean;
    } else if (key == "pooling_mode_max_tokens") {
      config.pooling = BertPooling::kMax;
    } else {
      return Malformed(path, StrCat("\"", key, "\" is not supported; the cls, mean and max modes are"));
    }
  }
  if (chosen != 1) return Malformed(path, StrCat(chosen, " pooling modes are on, exactly one must be"));
  return absl::OkStatus();
}

absl::Status ReadModules(BertConfig& config) {
  const std::string path = config.folder + "/modules.json";
  RETRO_ASSIGN_OR_RETURN(const Json modules, ReadOptionalJson(path));
  if (modules.is_null()) return absl::OkStatus();
  if (!modules.is_array()) return Malformed(path, "is not a JSON array");
  for (const Json& module : modules) {
    const bool well_formed = module.is_object() && module.contains("type") && module["type"].is_string() &&
                             module.contains("path") && module["path"].is_string();
    if (!well_formed) return Malformed(path, "each module needs a \"type\" and a \"path\"");
    const std::string type = module["type"];
    const std::string kind = type.substr(type.rfind('.') + 1);
    if (kind == "Pooling") {
      const std::string pooling = StrCat(config.folder, "/", module["path"].get<std::string>(), "/config.json");
      RETRO_RETURN_IF_ERROR(ReadPooling(pooling, config));
    } else if (kind == "Normalize") {
      config.normalise = true;
    } else if (kind != "Transformer") {
      return Malformed(path, StrCat("module type \"", type, "\" is not supported"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadMaxTokens(BertConfig& config) {
  const std::string path = config.folder + "/sentence_bert_config.json";
  RETRO_ASSIGN_OR_RETURN(const Json json, ReadOptionalJson(path));
  config.max_tokens = config.max_positions;
  if (!json.is_object() || !json.contains("max_seq_length") || json["max_seq_length"].is_null()) {
    return absl::OkStatus();
  }
  const Json& length = json["max_seq_length"];
  if (!length.is_number_integer() || length < 2 || length > config.max_positions) {
    return Malformed(path, StrCat("\"max_seq_length\" must be a whole number from 2 to ", config.max_positions,
                                  " (max_position_embeddings)"));
  }
  config.max_tokens = length.get<int>();
  return absl::OkStatus();
}

absl::Status ReadPrefixes(BertConfig& config) {
  const std::string path = config.folder + "/config_sentence_transformers.json";
  RETRO_ASSIGN_OR_RETURN(const Json json, ReadOptionalJson(path));
  if (!json.is_object() || !json.contains("prompts") || json["prompts"].is_null()) return absl::OkStatus();
  const Json& prompts = json["prompts"];
  if (!prompts.is_object()) return Malformed(path, "\"prompts\" must be an object");
  for (const auto& [name, prefix] : prompts.items()) {
    if (!prefix.is_string()) return Malformed(path, StrCat("prompt \"", name, "\" must be a string"));
    if (name == "query") config.query_prefix = prefix;
    if (name == "passage" || name == "document") config.passage_prefix = prefix;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BertConfig> ReadBertConfig(const std::string& folder) {
  BertConfig config;
  config.folder = folder;
  RETRO_RETURN_IF_ERROR(ReadNetwork(config));
  RETRO_RETURN_IF_ERROR(ReadModules(config));
  RETRO_RETURN_IF_ERROR(ReadMaxTokens(config));
  RETRO_RETURN_IF_ERROR(ReadPrefixes(config));
  return config;
}

}  // namespace retro
