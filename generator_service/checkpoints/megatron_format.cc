// The foreign format "megatron": Megatron-core's RetroModel (0.6 to 0.15), by the names of its state dict. The encoder
// sits in the first layer with CCA; the residual of its cross-attention is the normed input. A norm may be fused into
// the matrix after it. Whether there is a final norm, and a READ of its own, is decided by the keys.
#include <string>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/foreign_config.h"
#include "generator_service/checkpoints/foreign_formats.h"
#include "generator_service/checkpoints/megatron_names.h"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kFfwFactor = 4;
constexpr char kFinalNorm[] = "decoder.final_layernorm.weight";
constexpr char kReadout[] = "output_layer.weight";
constexpr std::string_view kExtraState = "_extra_state";

class Placer {
 public:
  Placer(const ModelConfig& config, const TensorSource& source, bool gains_less_one)
      : config_(config), source_(&source), gains_less_one_(gains_less_one) {}

  absl::StatusOr<ForeignWeight> operator()(const WeightSpec& spec) const {
    const WeightName name = ParseWeightName(spec.name);
    ForeignWeight place = name.layer == 0 ? Outside(spec.name) : InLayer(name);
    if (place.name.empty()) return NoPlaceFor(spec);
    if (spec.kind == WeightKind::kGain && gains_less_one_) place.offset = 1;
    return place;
  }

 private:
  static ForeignWeight Outside(const std::string& name) {
    static const auto* names =
        new std::map<std::string, std::string>{{"decoder.embedding", "embedding.word_embeddings.weight"},
                                               {"decoder.positions", "embedding.position_embeddings.weight"},
                                               {"decoder.final_norm", kFinalNorm},
                                               {"decoder.final_norm_bias", "decoder.final_layernorm.bias"},
                                               {"decoder.readout", kReadout}};
    const auto found = names->find(name);
    return {.name = found == names->end() ? "" : found->second};
  }

  ForeignWeight InLayer(const WeightName& name) const {
    const std::string layer = Layer(name);
    if (name.leaf.starts_with("norm")) return {.name = NormName(layer, name)};
    if (name.block == "attention") {
      return PlaceMegatronAttention(
          {.fused = layer + "self_attention.linear_qkv", .output = layer + "self_attention.linear_proj"}, name.leaf,
          config_.heads);
    }
    if (name.block == "cca") {
      const std::string cross = layer + "cross_attention.attn.";
      return PlaceMegatronAttention(
          {.fused = cross + "linear_kv", .query = cross + "linear_q", .output = cross + "linear_proj"}, name.leaf,
          config_.heads);
    }
    return PlaceMegatronFfw(layer + "mlp.linear_fc1", layer + "mlp.linear_fc2", name.leaf, config_.gated_ffw);
  }

  std::string Layer(const WeightName& name) const {
    if (!name.in_encoder) return StrCat("decoder.layers.", name.layer - 1, ".");
    return StrCat("decoder.layers.", config_.cca_layers[0] - 1, ".cross_attention.encoder.layers.", name.layer - 1,
                  ".");
  }

  // The first of a norm's names that the checkpoint has.
  std::string NormName(const std::string& layer, const WeightName& name) const {
    const std::string what = name.leaf == "norm" ? "weight" : "bias";
    std::vector<std::string> candidates;
    if (name.block == "attention") {
      candidates = {"input_layernorm.", "self_attention.linear_qkv.layer_norm_"};
    } else if (name.block == "cca") {
      candidates = {"pre_cross_attn_layernorm."};
    } else {
      candidates = {"pre_mlp_layernorm.", "pre_mlp_layernorm.norm.", "mlp.linear_fc1.layer_norm_"};
    }
    for (const std::string& candidate : candidates) {
      std::string full = StrCat(layer, candidate, what);
      if (source_->Has(full)) return full;
    }
    return layer + candidates[0] + what;
  }

  ModelConfig config_;
  const TensorSource* source_;
  bool gains_less_one_;
};

// The config's "transformer" part. Returns whether gains are stored less 1.
bool ReadTransformer(ForeignConfig& fields, ForeignReading& reading) {
  ModelConfig& config = reading.config;
  config.layers = fields.Integer("num_layers");
  config.width = fields.Integer("hidden_size");
  config.heads = fields.Integer("num_attention_heads");
  config.head_size = fields.Integer("kv_channels", config.heads > 0 ? config.width / config.heads : 0);
  if (fields.Integer("num_query_groups", config.heads) != config.heads) {
    fields.Fail("'num_query_groups' must be the number of heads: grouped queries are not supported here");
  }
  config.ffw_width = fields.Integer("ffn_hidden_size", kFfwFactor * config.width);
  config.encoder_layers = fields.Integer("retro_encoder_num_layers", 2);
  config.chunk_length = fields.Integer("retro_chunk_length");
  config.neighbour_length = config.chunk_length * fields.Integer("retro_num_retrieved_chunks", 2);
  const std::string norm = fields.Text("normalization", "LayerNorm");
  if (norm != "LayerNorm" && norm != "RMSNorm") fields.Fail(StrCat("'normalization' ", norm, " is not known"));
  config.norm = norm == "RMSNorm" ? NormKind::kRms : NormKind::kLayer;
  config.norm_eps = fields.Number("layernorm_epsilon", 1e-5);
  config.gated_ffw = fields.Flag("gated_linear_unit", false);
  const std::string activation = fields.Text("activation", config.gated_ffw ? "silu" : "gelu");
  if (activation == "silu" || activation == "swish") {
    config.activation = Activation::kSilu;
  } else if (activation == "gelu") {
    config.activation = Activation::kGeluErf;
  } else if (activation == "relu") {
    config.activation = Activation::kRelu;
  } else {
    fields.Fail(StrCat("'activation' ", activation, " is not one of silu, gelu, relu"));
  }
  config.output_biases = fields.Flag("add_bias_linear", true);
  config.query_key_value_biases = fields.Flag("add_qkv_bias", config.output_biases) || config.output_biases;
  fields.Refuse(
      {"qk_layernorm", "num_moe_experts", "multi_latent_attention", "apply_residual_connection_post_layernorm"});
  reading.trained_neighbours = fields.Integer("retro_num_neighbors", kTrainedNeighbours);
  fields.Ignore({"hidden_dropout", "attention_dropout", "init_method_std"});
  const bool zero_centred = fields.Flag("layernorm_zero_centered_gamma", false);
  return fields.Flag("_layernorm_1p", false) || zero_centred;
}

// The config's "model" part.
void ReadModel(ForeignConfig& fields, ModelConfig& config) {
  config.vocabulary = fields.Integer("vocab_size");
  config.max_length = fields.Integer("max_sequence_length");
  const std::string positions = fields.Text("position_embedding_type", "learned_absolute");
  config.positions = Positions::kNone;
  if (positions == "learned_absolute") {
    config.learned_positions = LearnedPositions::kBoth;
  } else if (positions == "rope") {
    ReadMegatronRotary(fields, config);
  } else if (positions != "none") {
    fields.Fail(StrCat("'position_embedding_type' ", positions, " is not one of learned_absolute, rope, none"));
  }
  fields.Refuse({"rotary_interleaved", "seq_len_interpolation_factor", "rope_scaling"});
  fields.Ignore({"rotary_percent", "rotary_base", "share_embeddings_and_output_weights", "parallel_output",
                 "fp16_lm_cross_entropy", "pre_process", "post_process"});
}

absl::StatusOr<ForeignReading> Read(const Json& json, const TensorSource& source) {
  for (const char* part : {"transformer", "model"}) {
    if (!json.contains(part) || !json[part].is_object()) {
      return absl::InvalidArgumentError(StrCat("needs the objects 'transformer' and 'model'; '", part, "' is missing"));
    }
  }
  ForeignConfig transformer(json["transformer"], "config.transformer");
  ForeignConfig model(json["model"], "config.model");
  ForeignReading reading;
  ModelConfig& config = reading.config;
  const bool gains_less_one = ReadTransformer(transformer, reading);
  ReadModel(model, config);
  RETRO_RETURN_IF_ERROR(transformer.status());
  RETRO_RETURN_IF_ERROR(model.status());
  config.cca_layers = MegatronCcaLayers(config.layers);
  SetMegatronEncoder(config);
  SetMegatronChoices(config);
  config.encoder_cca_residual_normed = true;
  config.final_norm = source.Has(kFinalNorm);
  config.tied_readout = !source.Has(kReadout);
  reading.place = Placer(config, source, gains_less_one);
  for (const auto& [name, shape] : source.shapes()) {
    if (name.ends_with(kExtraState)) reading.dropped[name] = "no weight";
  }
  reading.unused_keys = transformer.UnusedKeys();
  for (std::string& key : model.UnusedKeys()) reading.unused_keys.push_back(std::move(key));
  return reading;
}

}  // namespace

ForeignFormat MegatronFormat() { return {"megatron", "Megatron-core's RetroModel", Read, nullptr}; }

}  // namespace retro
