// The foreign format "instructretro": NVIDIA's InstructRetro checkpoints (legacy Megatron-LM), by the dotted names of
// their "model" dictionary. One norm after self-attention feeds FFW, or in layers with CCA the encoder's conditioning
// and CCA's queries; FFW then has a norm of its own. Older files say layernorm for norm. The encoder sits in the first
// layer with CCA, and sometimes a second time beside the layers.
#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/str_replace.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/foreign_config.h"
#include "generator_service/checkpoints/foreign_formats.h"
#include "generator_service/checkpoints/megatron_names.h"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;
using Names = std::map<std::string, std::string>;  // today's name -> the checkpoint's

constexpr std::string_view kPrefix = "language_model.";
constexpr std::string_view kSecondEncoder = "encoder.retriever.";
constexpr char kReadout[] = "output_layer.weight";
constexpr char kGate[] = "retro_attention_gate";
constexpr char kNeighbours[] = "retro_num_neighbors";

class Placer {
 public:
  Placer(const ModelConfig& config, Names names, bool gains_less_one)
      : config_(config), names_(std::move(names)), gains_less_one_(gains_less_one) {}

  absl::StatusOr<ForeignWeight> operator()(const WeightSpec& spec) const {
    const WeightName name = ParseWeightName(spec.name);
    ForeignWeight place = name.layer == 0 ? Outside(spec.name) : InLayer(name);
    if (place.name.empty()) return NoPlaceFor(spec);
    if (spec.kind == WeightKind::kGain && gains_less_one_) place.offset = 1;
    const auto found = names_.find(place.name);
    place.name = found == names_.end() ? StrCat(kPrefix, place.name) : found->second;
    return place;
  }

 private:
  static ForeignWeight Outside(const std::string& name) {
    static const auto* names =
        new std::map<std::string, std::string>{{"decoder.embedding", "embedding.word_embeddings.weight"},
                                               {"decoder.positions", "embedding.position_embeddings.weight"},
                                               {"decoder.final_norm", "encoder.final_norm.weight"},
                                               {"decoder.final_norm_bias", "encoder.final_norm.bias"},
                                               {"decoder.readout", kReadout}};
    const auto found = names->find(name);
    return {.name = found == names->end() ? "" : found->second};
  }

  ForeignWeight InLayer(const WeightName& name) const {
    std::string layer = StrCat("encoder.layers.", name.layer - 1, ".");
    if (name.in_encoder) {
      layer = StrCat("encoder.layers.", config_.cca_layers[0] - 1, ".retriever.layers.", name.layer - 1, ".");
    }
    if (name.leaf.starts_with("norm")) return {.name = layer + NormName(name)};
    if (name.block == "attention") {
      return PlaceMegatronAttention(
          {.fused = layer + "self_attention.query_key_value", .output = layer + "self_attention.dense"}, name.leaf,
          config_.heads);
    }
    if (name.block == "cca") {
      const std::string cross = layer + "inter_attention.";
      return PlaceMegatronAttention({.fused = cross + "key_value", .query = cross + "query", .output = cross + "dense"},
                                    name.leaf, config_.heads);
    }
    return PlaceMegatronFfw(layer + "mlp.dense_h_to_4h", layer + "mlp.dense_4h_to_h", name.leaf, config_.gated_ffw);
  }

  std::string NormName(const WeightName& name) const {
    const std::string what = name.leaf == "norm" ? ".weight" : ".bias";
    if (name.block == "attention") return "input_norm" + what;
    if (name.block == "cca") return "post_attention_norm" + what;
    const std::vector<int64_t>& with_cca = name.in_encoder ? config_.encoder_cca_layers : config_.cca_layers;
    const bool has_cca = std::find(with_cca.begin(), with_cca.end(), name.layer) != with_cca.end();
    return (has_cca ? "post_inter_attention_norm" : "post_attention_norm") + what;
  }

  ModelConfig config_;
  Names names_;
  bool gains_less_one_;
};

// Returns whether gains are stored less 1.
bool ReadFields(ForeignConfig& fields, ForeignReading& reading) {
  ModelConfig& config = reading.config;
  config.layers = fields.Integer("num_layers");
  config.width = fields.Integer("hidden_size");
  config.heads = fields.Integer("num_attention_heads");
  config.head_size = fields.Integer("kv_channels", config.heads > 0 ? config.width / config.heads : 0);
  config.ffw_width = fields.Integer("ffn_hidden_size");
  config.vocabulary = fields.Integer("padded_vocab_size");
  const int64_t length = fields.Integer("seq_length", 1);
  config.max_length = fields.Integer("max_position_embeddings", length);
  config.encoder_layers = fields.Integer("retro_encoder_layers", 2);
  config.chunk_length = fields.Integer("retro_gpt_chunk_length", 64);
  config.neighbour_length = fields.Integer("retro_gpt_retrieved_length",
                                           config.chunk_length * fields.Integer("retro_num_retrieved_chunks", 2));
  config.cca_layers = fields.Integers("retro_layer_numbers", MegatronCcaLayers(config.layers));
  config.norm_eps = fields.Number("norm_epsilon", 1e-5);
  const std::string norm = fields.Text("normalization", "LayerNorm");
  if (norm != "LayerNorm" && norm != "RMSNorm") fields.Fail(StrCat("'normalization' ", norm, " is not known"));
  config.norm = norm == "RMSNorm" ? NormKind::kRms : NormKind::kLayer;
  config.gated_ffw = fields.Flag("swiglu", true);
  config.activation = config.gated_ffw ? Activation::kSilu : Activation::kGeluErf;
  config.output_biases = fields.Flag("add_bias_linear", false);
  config.query_key_value_biases = config.output_biases;
  config.tied_readout = !fields.Flag("untie_embeddings_and_output_weights", true);
  config.gate = fields.Number(kGate, 1.0);
  const std::string positions = fields.Text("position_embedding_type", "rope");
  if (positions != "rope") fields.Fail(StrCat("'position_embedding_type' ", positions, " is not rope"));
  ReadMegatronRotary(fields, config);
  fields.Refuse({"openai_gelu", "squared_relu", "group_query_attention", "num_experts",
                 "apply_residual_connection_post_layernorm", "rotary_seq_len_interpolation_factor"});
  reading.trained_neighbours = fields.Integer(kNeighbours, kTrainedNeighbours);
  fields.Ignore({"retro_num_retrieved_chunks", "tensor_model_parallel_size"});
  if (!fields.Has("checkpoint_version")) {
    fields.Fail(
        "'checkpoint_version' is missing here and in the checkpoint, which so is of version 0, or lost it: if it is of "
        "2 or later, say so");
  } else if (fields.Number("checkpoint_version", 0.0) < 2.0) {
    fields.Fail("'checkpoint_version' below 2 orders queries, keys and values otherwise and is not read here");
  }
  return fields.Flag("apply_layernorm_1p", false);
}

// Sorts the checkpoint's names: today's form, no weights at all, second copies of the encoder.
Names SortNames(const TensorSource& source, const ModelConfig& config, ForeignReading& reading) {
  Names names;
  std::map<std::string, std::string> second;  // likewise, of the second encoder
  const std::string first_encoder = StrCat("encoder.layers.", config.cca_layers[0] - 1, ".retriever.");
  for (const auto& [stored, shape] : source.shapes()) {
    if (stored.ends_with("_extra_state")) {
      reading.dropped[stored] = "no weight";
      continue;
    }
    std::string name = absl::StrReplaceAll(stored, {{"layernorm", "norm"}});
    if (name.starts_with(kPrefix)) name = name.substr(kPrefix.size());
    if (name.starts_with(kSecondEncoder)) {
      second[first_encoder + name.substr(kSecondEncoder.size())] = stored;
    } else {
      names[name] = stored;
    }
  }
  for (const auto& [name, stored] : second) {
    const auto [first, added] = names.emplace(name, stored);
    if (!added) reading.copies[stored] = first->second;
  }
  return names;
}

// The config, with what the training's arguments in the checkpoint say where the config says nothing. What both say
// must agree.
absl::StatusOr<Json> WithArguments(const Json& config, const Json& facts) {
  static const std::set<std::string> taken = {"num_layers",
                                              "hidden_size",
                                              "num_attention_heads",
                                              "kv_channels",
                                              "ffn_hidden_size",
                                              "padded_vocab_size",
                                              "seq_length",
                                              "max_position_embeddings",
                                              "norm_epsilon",
                                              "normalization",
                                              "apply_layernorm_1p",
                                              "add_bias_linear",
                                              "swiglu",
                                              "position_embedding_type",
                                              "rotary_percent",
                                              "untie_embeddings_and_output_weights",
                                              "retro_encoder_layers",
                                              "retro_num_retrieved_chunks",
                                              "tensor_model_parallel_size",
                                              "openai_gelu",
                                              "squared_relu",
                                              "group_query_attention",
                                              "num_experts",
                                              "apply_residual_connection_post_layernorm",
                                              "rotary_seq_len_interpolation_factor"};
  Json merged = config;
  const Json version = facts.value("checkpoint_version", Json());
  if (!version.is_null()) merged["checkpoint_version"] = version;
  const Json arguments = facts.value("args", Json::object());
  for (const auto& [key, value] : arguments.items()) {
    const auto said = config.find(key);
    // What CCA is scaled by, and how much it reads, is the user's choice, whatever it was trained with.
    if ((key == kGate || key == kNeighbours) && !value.is_null() && said == config.end()) merged[key] = value;
    if (!taken.contains(key) || value.is_null()) continue;
    if (said != config.end() && !said->is_null() && *said != value) {
      return absl::InvalidArgumentError(
          StrCat("'", key, "' is ", said->dump(), ", the checkpoint's own arguments say ", value.dump()));
    }
    merged[key] = value;
  }
  return merged;
}

absl::StatusOr<ForeignReading> Read(const Json& json, const TensorSource& source) {
  RETRO_ASSIGN_OR_RETURN(const Json merged, WithArguments(json, source.facts()));
  ForeignConfig fields(merged, "config");
  ForeignReading reading;
  ModelConfig& config = reading.config;
  const bool gains_less_one = ReadFields(fields, reading);
  SetMegatronEncoder(config);
  SetMegatronChoices(config);
  if (config.cca_layers.empty()) fields.Fail(StrCat(config.layers, " layers have none with CCA"));
  RETRO_RETURN_IF_ERROR(fields.status());
  reading.place = Placer(config, SortNames(source, config, reading), gains_less_one);
  reading.unused_keys = fields.UnusedKeys();
  if (!json.contains(kGate)) {
    reading.notes.push_back(StrCat("'", kGate, "' is not given: the model's gate is ", config.gate,
                                   ", which scales what CCA adds; 0, as in generation scripts published with these "
                                   "models, turns retrieval off"));
  }
  return reading;
}

}  // namespace

ForeignFormat InstructRetroFormat() { return {"instructretro", "NVIDIA's InstructRetro", Read, nullptr}; }

}  // namespace retro
