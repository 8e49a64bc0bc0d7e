// The foreign format "norlund": T. Norlund's PyTorch RETRO. Layers are numbered from 0; in a layer .0 is
// self-attention, .1 cross-attention, .2 FFW. Q, K and V of self-attention stand in one matrix, one after the other; so
// do K and V of cross-attention. Pad tokens lose 10000 in their logits; positions are learned biases by clamped
// distance.
#include <string>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/foreign_config.h"
#include "generator_service/checkpoints/foreign_formats.h"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kNormEps = 1e-8;
// The format has no bound on a text: distances are clamped.
constexpr int64_t kLengthMax = 2048;
constexpr char kDecoderEmbedding[] = "base.dec_embs.weight";
constexpr char kEncoderEmbedding[] = "base.encoder.enc_embs.weight";
constexpr char kReadout[] = "lm_head.weight";

std::vector<int64_t> Shifted(std::vector<int64_t> layers, int64_t by) {
  for (int64_t& layer : layers) layer += by;
  return layers;
}

// Self-attention, by our leaf.
absl::StatusOr<ForeignWeight> PlaceAttention(const WeightSpec& spec, const std::string& prefix, const std::string& leaf,
                                             bool is_cross) {
  if (leaf == "norm") return ForeignWeight{.name = prefix + "ln.scale"};
  if (leaf == "output") return ForeignWeight{.name = prefix + "multi_head_attention.final_proj.weight"};
  if (leaf == "buckets") {
    return ForeignWeight{.name = prefix + "multi_head_attention.positional_bias.relative_attention_bias.weight"};
  }
  const int64_t part = leaf == "query" ? 0 : leaf == "key" ? 1 : leaf == "value" ? 2 : -1;
  if (part < 0) return NoPlaceFor(spec);
  if (!is_cross) return ForeignWeight{.name = prefix + "qkv_proj.weight", .part = part, .parts = 3};
  if (part == 0) return ForeignWeight{.name = prefix + "q_proj.weight"};
  return ForeignWeight{.name = prefix + "kv_proj.weight", .part = part - 1, .parts = 2};
}

absl::StatusOr<ForeignWeight> Place(const WeightSpec& spec) {
  static const auto* outside =
      new std::map<std::string, std::string>{{"decoder.embedding", kDecoderEmbedding},
                                             {"encoder.embedding", kEncoderEmbedding},
                                             {"decoder.final_norm", "base.final_layer_norm.scale"},
                                             {"decoder.readout", kReadout}};
  static const auto* ffw = new std::map<std::string, std::string>{
      {"norm", "layer_norm.scale"}, {"gate", "wi_0.weight"}, {"up", "wi_1.weight"}, {"down", "wo.weight"}};
  if (const auto found = outside->find(spec.name); found != outside->end()) return ForeignWeight{.name = found->second};
  const WeightName name = ParseWeightName(spec.name);
  const std::string layer = StrCat(name.in_encoder ? "base.encoder.layers." : "base.decoder.", name.layer - 1, ".");
  if (name.block == "attention") return PlaceAttention(spec, layer + "0.", name.leaf, false);
  if (name.block == "cca") return PlaceAttention(spec, layer + "1.", name.leaf, true);
  const auto found = ffw->find(name.leaf);
  if (name.block != "ffw" || found == ffw->end()) return NoPlaceFor(spec);
  return ForeignWeight{.name = layer + "2." + found->second};
}

// The attention's inner width is given whole.
int64_t HeadSize(ForeignConfig& fields, const std::string& key, int64_t heads) {
  const int64_t inner = fields.Integer(key);
  if (heads <= 0 || inner % heads != 0) {
    fields.Fail(StrCat("'", key, "' ", inner, " must be a multiple of its ", heads, " heads"));
    return 1;
  }
  return inner / heads;
}

void ReadSizes(ForeignConfig& fields, ModelConfig& config) {
  config.width = fields.Integer("dec_hidden_dim");
  config.ffw_width = fields.Integer("dec_ffn_dim");
  config.heads = fields.Integer("dec_num_heads");
  config.head_size = HeadSize(fields, "dec_qkv_dim", config.heads);
  config.layers = fields.Integer("dec_num_layers");
  config.cca_layers = Shifted(fields.Integers("dec_cca_layers", {}), 1);
  config.encoder_width = fields.Integer("enc_hidden_dim");
  config.encoder_ffw_width = fields.Integer("enc_ffn_dim");
  config.encoder_heads = fields.Integer("enc_num_heads");
  config.encoder_head_size = HeadSize(fields, "enc_qkv_dim", config.encoder_heads);
  config.encoder_layers = fields.Integer("enc_num_layers");
  config.encoder_cca_layers = Shifted(fields.Integers("enc_ca_layers", {}), 1);
  config.vocabulary = fields.Integer("num_embeddings");
  config.chunk_length = fields.Integer("chunk_size");
  config.neighbour_length = 2 * config.chunk_length;
  config.max_length = kLengthMax;
  config.attention_buckets = fields.Integer("dec_sa_pos_bias_num_buckets");
  config.cca_buckets = fields.Integer("dec_cca_pos_bias_num_buckets");
  config.encoder_attention_buckets = fields.Integer("enc_sa_pos_bias_num_buckets");
  config.encoder_cca_buckets = fields.Integer("enc_ca_pos_bias_num_buckets");
}

absl::StatusOr<ForeignReading> Read(const Json& json, const TensorSource& source) {
  ForeignConfig fields(json, "config");
  ForeignReading reading{.place = Place};
  ModelConfig& config = reading.config;
  ReadSizes(fields, config);
  config.norm = NormKind::kRmsEpsOutside;
  config.norm_eps = kNormEps;
  config.gated_ffw = true;
  config.attention_scale = false;
  config.positions = Positions::kBuckets;
  config.tied_readout = fields.Flag("tied", false);
  config.shared_embedding = fields.Flag("enc_share_decoder_embs", false);
  config.mask_pad = true;
  config.additive_pad_mask = true;
  config.pad_id = fields.Integer("pad_token_idx");
  fields.Ignore({"dropout_p", "is_encoder_decoder"});
  reading.unused_keys = fields.UnusedKeys();
  // Modules that share a weight are saved under each of its names.
  if (config.shared_embedding && source.Has(kEncoderEmbedding)) reading.copies[kEncoderEmbedding] = kDecoderEmbedding;
  if (config.tied_readout && source.Has(kReadout)) reading.copies[kReadout] = kDecoderEmbedding;
  RETRO_RETURN_IF_ERROR(fields.status());
  return reading;
}

Json WriteConfig(const ModelConfig& c) {
  return {{"num_embeddings", c.vocabulary},
          {"pad_token_idx", c.pad_id},
          {"chunk_size", c.chunk_length},
          {"enc_share_decoder_embs", c.shared_embedding},
          {"enc_hidden_dim", c.encoder_width},
          {"enc_num_layers", c.encoder_layers},
          {"enc_ffn_dim", c.encoder_ffw_width},
          {"enc_num_heads", c.encoder_heads},
          {"enc_qkv_dim", c.encoder_heads * c.encoder_head_size},
          {"enc_ca_layers", Shifted(c.encoder_cca_layers, -1)},
          {"enc_sa_pos_bias_num_buckets", c.encoder_attention_buckets},
          {"enc_ca_pos_bias_num_buckets", c.encoder_cca_buckets},
          {"dec_hidden_dim", c.width},
          {"dec_num_layers", c.layers},
          {"dec_ffn_dim", c.ffw_width},
          {"dec_num_heads", c.heads},
          {"dec_qkv_dim", c.heads * c.head_size},
          {"dec_cca_layers", Shifted(c.cca_layers, -1)},
          {"dec_sa_pos_bias_num_buckets", c.attention_buckets},
          {"dec_cca_pos_bias_num_buckets", c.cca_buckets},
          {"is_encoder_decoder", false},
          {"tied", c.tied_readout}};
}

}  // namespace

ForeignFormat NorlundFormat() { return {"norlund", "T. Norlund's PyTorch RETRO", Read, WriteConfig}; }

}  // namespace retro
