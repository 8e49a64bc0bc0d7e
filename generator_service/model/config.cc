#include "generator_service/model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <type_traits>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kSizeMax = 1 << 24;    // of any one dimension: keeps every product of three within 63 bits
constexpr int64_t kLengthMax = 1 << 20;  // of any sequence: position tables have a row for each distance
constexpr int64_t kLayersMax = 1024;
constexpr int64_t kHeadsMax = 1024;

// Names in the order of the enums.
template <typename Enum>
constexpr std::array<const char*, 0> kNames;
template <>
constexpr std::array<const char*, 4> kNames<Activation> = {"gelu_tanh", "gelu_erf", "relu", "silu"};
template <>
constexpr std::array<const char*, 5> kNames<NormKind> = {"rms", "rms_eps_outside", "rms_floor", "rms_floor_gated",
                                                         "layer"};
template <>
constexpr std::array<const char*, 5> kNames<Positions> = {"transformer_xl", "buckets", "rotary", "rotary_decoder",
                                                          "none"};
template <>
constexpr std::array<const char*, 3> kNames<LearnedPositions> = {"none", "decoder", "both"};

template <typename Enum>
std::string_view NameOf(Enum value) {
  return kNames<Enum>[static_cast<size_t>(value)];
}

// Calls visit(name, member, required) for every member: the one list that reading and writing share.
template <typename Config, typename Visit>
void VisitFields(Config& c, Visit&& visit) {
  visit("width", c.width, true);
  visit("ffw_width", c.ffw_width, true);
  visit("heads", c.heads, true);
  visit("head_size", c.head_size, true);
  visit("layers", c.layers, true);
  visit("cca_layers", c.cca_layers, true);
  visit("encoder_width", c.encoder_width, false);
  visit("encoder_ffw_width", c.encoder_ffw_width, false);
  visit("encoder_heads", c.encoder_heads, false);
  visit("encoder_head_size", c.encoder_head_size, false);
  visit("encoder_layers", c.encoder_layers, false);
  visit("encoder_cca_layers", c.encoder_cca_layers, false);
  visit("vocabulary", c.vocabulary, true);
  visit("chunk_length", c.chunk_length, true);
  visit("neighbour_length", c.neighbour_length, true);
  visit("max_length", c.max_length, true);
  visit("norm", c.norm, false);
  visit("norm_eps", c.norm_eps, false);
  visit("final_norm", c.final_norm, false);
  visit("post_norm", c.post_norm, false);
  visit("residual_scale", c.residual_scale, false);
  visit("encoder_residual_scale", c.encoder_residual_scale, false);
  visit("activation", c.activation, false);
  visit("gated_ffw", c.gated_ffw, false);
  visit("attention_scale", c.attention_scale, false);
  visit("query_key_value_biases", c.query_key_value_biases, false);
  visit("output_biases", c.output_biases, false);
  visit("readout_bias", c.readout_bias, false);
  visit("tied_readout", c.tied_readout, false);
  visit("shared_embedding", c.shared_embedding, false);
  visit("embedding_width", c.embedding_width, false);
  visit("encoder_final_norm", c.encoder_final_norm, false);
  visit("encoder_projection", c.encoder_projection, false);
  visit("conditioning_norm", c.conditioning_norm, false);
  visit("conditioning_cca_norm", c.conditioning_cca_norm, false);
  visit("encoder_cca_residual_normed", c.encoder_cca_residual_normed, false);
  visit("null_key", c.null_key, false);
  visit("gate", c.gate, false);
  visit("positions", c.positions, false);
  visit("position_biases", c.position_biases, false);
  visit("attention_buckets", c.attention_buckets, false);
  visit("cca_buckets", c.cca_buckets, false);
  visit("encoder_attention_buckets", c.encoder_attention_buckets, false);
  visit("encoder_cca_buckets", c.encoder_cca_buckets, false);
  visit("rotary_size", c.rotary_size, false);
  visit("rotary_base", c.rotary_base, false);
  visit("learned_positions", c.learned_positions, false);
  visit("mask_pad", c.mask_pad, false);
  visit("additive_pad_mask", c.additive_pad_mask, false);
  visit("pad_id", c.pad_id, false);
  visit("offset", c.offset, false);
  visit("partial_chunk_first", c.partial_chunk_first, false);
}

absl::Status Wrong(std::string_view field, std::string_view requirement) {
  return absl::InvalidArgumentError(StrCat("model config: ", field, " must be ", requirement));
}

absl::Status ReadValue(const Json& json, std::string_view name, int64_t& value) {
  if (!json.is_number_integer()) return Wrong(name, "an integer");
  value = json.get<int64_t>();
  return absl::OkStatus();
}

absl::Status ReadValue(const Json& json, std::string_view name, double& value) {
  if (!json.is_number()) return Wrong(name, "a number");
  value = json.get<double>();
  return absl::OkStatus();
}

absl::Status ReadValue(const Json& json, std::string_view name, bool& value) {
  if (!json.is_boolean()) return Wrong(name, "true or false");
  value = json.get<bool>();
  return absl::OkStatus();
}

absl::Status ReadValue(const Json& json, std::string_view name, std::vector<int64_t>& value) {
  if (!json.is_array() || json.size() > kLayersMax) return Wrong(name, "a list of layer numbers");
  for (const Json& item : json) {
    if (!item.is_number_integer()) return Wrong(name, "a list of layer numbers");
    value.push_back(item.get<int64_t>());
  }
  return absl::OkStatus();
}

template <typename Enum>
requires std::is_enum_v<Enum> absl::Status ReadValue(const Json& json, std::string_view name, Enum& value) {
  const std::string text = json.is_string() ? json.get<std::string>() : "";
  const auto found = std::ranges::find(kNames<Enum>, text);
  if (found == kNames<Enum>.end()) return Wrong(name, StrCat("one of ", absl::StrJoin(kNames<Enum>, ", ")));
  value = static_cast<Enum>(found - kNames<Enum>.begin());
  return absl::OkStatus();
}

absl::Status CheckRange(std::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Wrong(field, StrCat("from ", low, " to ", high, ", is ", value));
}

absl::Status CheckLayerList(std::string_view field, const std::vector<int64_t>& list, int64_t layers) {
  int64_t previous = 0;
  for (const int64_t layer : list) {
    if (layer <= previous || layer > layers) {
      return Wrong(field, StrCat("rising numbers from 1 to ", layers, ", is [", absl::StrJoin(list, ", "), "]"));
    }
    previous = layer;
  }
  return absl::OkStatus();
}

bool IsRotary(Positions positions) { return positions == Positions::kRotary || positions == Positions::kRotaryDecoder; }

absl::Status ValidateEncoderPositions(const ModelConfig& c) {
  if (c.positions == Positions::kBuckets) {
    RETRO_RETURN_IF_ERROR(CheckRange("cca_buckets", c.cca_buckets, 1, kLengthMax));
    RETRO_RETURN_IF_ERROR(CheckRange("encoder_attention_buckets", c.encoder_attention_buckets, 1, kLengthMax));
    RETRO_RETURN_IF_ERROR(CheckRange("encoder_cca_buckets", c.encoder_cca_buckets, 1, kLengthMax));
  }
  if (c.positions == Positions::kRotary && c.rotary_size > c.encoder_head_size) {
    return Wrong("rotary_size", StrCat("at most the encoder_head_size ", c.encoder_head_size));
  }
  if (c.learned_positions != LearnedPositions::kBoth) return absl::OkStatus();
  if (c.encoder_width != EmbeddingWidth(c)) {
    return Wrong("encoder_width", "the embedding's width where learned_positions is both");
  }
  return CheckRange("neighbour_length", c.neighbour_length, 1, c.max_length);
}

absl::Status ValidateEncoder(const ModelConfig& c) {
  RETRO_RETURN_IF_ERROR(CheckRange("encoder_width", c.encoder_width, 2, kSizeMax));
  RETRO_RETURN_IF_ERROR(CheckRange("encoder_ffw_width", c.encoder_ffw_width, 1, kSizeMax));
  RETRO_RETURN_IF_ERROR(CheckRange("encoder_heads", c.encoder_heads, 1, kHeadsMax));
  RETRO_RETURN_IF_ERROR(CheckRange("encoder_head_size", c.encoder_head_size, 1, kSizeMax));
  RETRO_RETURN_IF_ERROR(CheckRange("encoder_layers", c.encoder_layers, 1, kLayersMax));
  RETRO_RETURN_IF_ERROR(CheckLayerList("encoder_cca_layers", c.encoder_cca_layers, c.encoder_layers));
  if (c.positions == Positions::kTransformerXl && c.encoder_width % 2 != 0) {
    return Wrong("encoder_width", "even (sines and cosines)");
  }
  if (c.neighbour_length < c.chunk_length) {
    return Wrong("neighbour_length", StrCat("at least the chunk_length ", c.chunk_length, ", is ", c.neighbour_length));
  }
  if (c.shared_embedding && c.encoder_width != EmbeddingWidth(c)) {
    return Wrong("encoder_width", StrCat("the embedding's width ", EmbeddingWidth(c),
                                         " where shared_embedding is on, is ", c.encoder_width));
  }
  if (c.conditioning_norm && c.conditioning_cca_norm) {
    return Wrong("conditioning_cca_norm", "off where conditioning_norm is on");
  }
  return ValidateEncoderPositions(c);
}

absl::Status ValidateDecoderPositions(const ModelConfig& c) {
  if (c.positions == Positions::kTransformerXl && c.width % 2 != 0) return Wrong("width", "even (sines and cosines)");
  if (c.positions == Positions::kBuckets) {
    RETRO_RETURN_IF_ERROR(CheckRange("attention_buckets", c.attention_buckets, 1, kLengthMax));
  }
  if (IsRotary(c.positions)) {
    RETRO_RETURN_IF_ERROR(CheckRange("rotary_size", c.rotary_size, 2, c.head_size));
    if (c.rotary_size % 2 != 0) return Wrong("rotary_size", "even (it is rotated in halves)");
    if (!std::isfinite(c.rotary_base) || c.rotary_base <= 1) return Wrong("rotary_base", "a number above 1");
  }
  return absl::OkStatus();
}

absl::Status ValidateNorms(const ModelConfig& c) {
  if (!std::isfinite(c.norm_eps) || c.norm_eps <= 0 || c.norm_eps >= 1) return Wrong("norm_eps", "between 0 and 1");
  if (!std::isfinite(c.residual_scale)) return Wrong("residual_scale", "a finite number");
  if (!std::isfinite(c.encoder_residual_scale)) return Wrong("encoder_residual_scale", "a finite number");
  if (c.post_norm || (c.residual_scale == 1 && c.encoder_residual_scale == 1)) return absl::OkStatus();
  return Wrong("post_norm", "on where a residual is scaled");
}

ModelConfig PaperPreset(int64_t width, int64_t heads, int64_t head_size, int64_t layers,
                        std::vector<int64_t> cca_layers) {
  ModelConfig config;
  config.width = width;
  config.ffw_width = 4 * width;
  config.heads = heads;
  config.head_size = head_size;
  config.layers = layers;
  config.cca_layers = std::move(cca_layers);
  config.encoder_width = 896;
  config.encoder_ffw_width = 3584;
  config.encoder_heads = 16;
  config.encoder_head_size = 64;
  config.encoder_layers = 2;
  config.encoder_cca_layers = {1};
  config.vocabulary = 128000;
  return config;
}

ModelConfig DemoPreset() {
  ModelConfig config = PaperPreset(256, 8, 32, 6, {3, 5});
  config.encoder_width = 256;
  config.encoder_ffw_width = 1024;
  config.encoder_heads = 8;
  config.encoder_head_size = 32;
  config.vocabulary = 16384;
  config.shared_embedding = true;
  config.mask_pad = true;
  return config;
}

std::vector<std::pair<std::string, ModelConfig>> Presets() {
  return {{"retro-172m", PaperPreset(896, 16, 64, 12, {6, 9, 12})},
          {"retro-425m", PaperPreset(1536, 12, 128, 12, {6, 9, 12})},
          {"retro-1.5b", PaperPreset(2048, 16, 128, 24, {6, 9, 12, 15, 18, 21, 24})},
          {"retro-7.5b", PaperPreset(4096, 32, 128, 32, {9, 12, 15, 18, 21, 24, 27, 30, 32})},
          {"retro-demo", DemoPreset()}};
}

}  // namespace

std::string_view ActivationName(Activation activation) { return NameOf(activation); }
std::string_view NormKindName(NormKind kind) { return NameOf(kind); }
std::string_view PositionsName(Positions positions) { return NameOf(positions); }
std::string_view LearnedPositionsName(LearnedPositions positions) { return NameOf(positions); }

int64_t EmbeddingWidth(const ModelConfig& config) {
  return config.embedding_width == 0 ? config.width : config.embedding_width;
}

int64_t EncodedWidth(const ModelConfig& config) {
  return config.encoder_projection ? config.width : config.encoder_width;
}

int64_t DefaultOffset(const ModelConfig& config, int64_t length) {
  return config.partial_chunk_first ? length % config.chunk_length : config.offset;
}

absl::Status ValidateModelConfig(const ModelConfig& c) {
  RETRO_RETURN_IF_ERROR(CheckRange("width", c.width, 2, kSizeMax));
  RETRO_RETURN_IF_ERROR(CheckRange("ffw_width", c.ffw_width, 1, kSizeMax));
  RETRO_RETURN_IF_ERROR(CheckRange("heads", c.heads, 1, kHeadsMax));
  RETRO_RETURN_IF_ERROR(CheckRange("head_size", c.head_size, 1, kSizeMax));
  RETRO_RETURN_IF_ERROR(CheckRange("layers", c.layers, 1, kLayersMax));
  RETRO_RETURN_IF_ERROR(CheckLayerList("cca_layers", c.cca_layers, c.layers));
  RETRO_RETURN_IF_ERROR(CheckRange("vocabulary", c.vocabulary, 1, kSizeMax));
  RETRO_RETURN_IF_ERROR(CheckRange("chunk_length", c.chunk_length, 1, kLengthMax));
  RETRO_RETURN_IF_ERROR(CheckRange("neighbour_length", c.neighbour_length, 1, kLengthMax));
  RETRO_RETURN_IF_ERROR(CheckRange("max_length", c.max_length, 1, kLengthMax));
  RETRO_RETURN_IF_ERROR(CheckRange("pad_id", c.pad_id, 0, c.vocabulary - 1));
  RETRO_RETURN_IF_ERROR(CheckRange("embedding_width", c.embedding_width, 0, kSizeMax));
  RETRO_RETURN_IF_ERROR(CheckRange("offset", c.offset, 0, c.chunk_length - 1));
  RETRO_RETURN_IF_ERROR(ValidateDecoderPositions(c));
  if (c.tied_readout && EmbeddingWidth(c) != c.width) {
    return Wrong("embedding_width", "the width where tied_readout is on");
  }
  if (c.additive_pad_mask && !c.mask_pad) return Wrong("mask_pad", "on where additive_pad_mask is on");
  if (!std::isfinite(c.gate)) return Wrong("gate", "a finite number");
  RETRO_RETURN_IF_ERROR(ValidateNorms(c));
  return c.cca_layers.empty() ? absl::OkStatus() : ValidateEncoder(c);
}

std::string ModelConfigToJson(const ModelConfig& config) {
  Json json = Json::object();
  VisitFields(config, [&json](const char* name, const auto& value, bool) {
    if constexpr (std::is_enum_v<std::decay_t<decltype(value)>>) {
      json[name] = NameOf(value);
    } else {
      json[name] = value;
    }
  });
  return json.dump(2);
}

absl::StatusOr<ModelConfig> ModelConfigFromJson(std::string_view text) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("model config: not a JSON object");
  ModelConfig config;
  absl::Status status;
  std::set<std::string> known;
  VisitFields(config, [&](const char* name, auto& value, bool required) {
    known.insert(name);
    if (!status.ok()) return;
    const auto found = json.find(name);
    if (found != json.end()) {
      status = ReadValue(*found, name, value);
    } else if (required) {
      status = absl::InvalidArgumentError(StrCat("model config: '", name, "' is missing"));
    }
  });
  RETRO_RETURN_IF_ERROR(status);
  for (const auto& [key, value] : json.items()) {
    if (!known.contains(key)) return absl::InvalidArgumentError(StrCat("model config: unknown key '", key, "'"));
  }
  RETRO_RETURN_IF_ERROR(ValidateModelConfig(config));
  return config;
}

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const auto& [name, config] : Presets()) names.push_back(name);
  return names;
}

absl::StatusOr<ModelConfig> PresetModelConfig(std::string_view name) {
  for (const auto& [preset_name, config] : Presets()) {
    if (preset_name == name) return config;
  }
  return absl::NotFoundError(StrCat("no preset '", name, "': there are ", absl::StrJoin(PresetNames(), ", ")));
}

}  // namespace retro
