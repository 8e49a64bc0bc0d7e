// The foreign format "lucidrains": retro-pytorch 0.3.9. Layers are numbered from 0; in a layer .0 is self-attention, .1
// cross-attention, .2 FFW. Always 8 heads. One embedding of the encoder's width for both, projected to the decoder's
// where the widths differ; the encoder's output is normed and projected. CCA has a null key. Learned positions in the
// decoder, and rotary ones on the first 32 dimensions of each head at most, everywhere. With use_deepnet norms stand
// after the residuals, which are scaled, and are layer norms; with gated_rmsnorm a norm has a sigmoid gate.
#include <algorithm>
#include <cmath>
#include <string>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/foreign_config.h"
#include "generator_service/checkpoints/foreign_formats.h"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kHeads = 8;
constexpr int64_t kRotarySizeMax = 32;
constexpr int64_t kFfwFactor = 4;
constexpr double kNormFloor = 1e-8;
constexpr double kLayerNormEps = 1e-5;
constexpr char kFrequencies[] = "rotary_pos_emb.inv_freq";

// A norm's tensor: "norm", "norm_bias" or "norm_gate" in its module, "....norm." or "....norm_out.".
ForeignWeight PlaceNorm(const std::string& module, std::string_view leaf, NormKind kind) {
  if (leaf.ends_with("_bias")) return {.name = module + "bias"};
  const bool plain = leaf.ends_with("_gate") || kind == NormKind::kLayer;
  return {.name = module + (plain ? "weight" : "gamma")};
}

absl::StatusOr<ForeignWeight> Place(const WeightSpec& spec, NormKind norm) {
  static const auto* outside =
      new std::map<std::string, std::string>{{"decoder.embedding", "token_emb.weight"},
                                             {"decoder.positions", "pos_emb.weight"},
                                             {"decoder.embedding_projection", "to_decoder_model_dim.weight"},
                                             {"decoder.embedding_projection_bias", "to_decoder_model_dim.bias"},
                                             {"decoder.readout", "to_logits.weight"},
                                             {"decoder.readout_bias", "to_logits.bias"},
                                             {"encoder.projection", "encoder.project_out.weight"},
                                             {"encoder.projection_bias", "encoder.project_out.bias"}};
  static const auto* attention = new std::map<std::string, std::string>{
      {"query", "to_q.weight"},       {"key", "to_k.weight"}, {"value", "to_v.weight"}, {"output", "to_out.weight"},
      {"output_bias", "to_out.bias"}, {"null_key", "null_k"}, {"null_value", "null_v"}};
  static const auto* ffw = new std::map<std::string, std::string>{
      {"up", "ff.0.weight"}, {"up_bias", "ff.0.bias"}, {"down", "ff.3.weight"}, {"down_bias", "ff.3.bias"}};
  if (const auto found = outside->find(spec.name); found != outside->end()) return ForeignWeight{.name = found->second};
  const WeightName name = ParseWeightName(spec.name);
  const std::string side = name.in_encoder ? "encoder" : "decoder";
  if (name.leaf.starts_with("final_norm")) return PlaceNorm(side + ".norm_out.", name.leaf, norm);
  const int64_t part = name.block == "attention" ? 0 : name.block == "cca" ? 1 : 2;
  const std::string prefix = StrCat(side, ".layers.", name.layer - 1, ".", part, ".");
  if (name.leaf.starts_with("norm")) return PlaceNorm(prefix + "norm.", name.leaf, norm);
  const auto& leaves = part == 2 ? *ffw : *attention;
  const auto found = leaves.find(name.leaf);
  if (name.layer == 0 || found == leaves.end()) return NoPlaceFor(spec);
  const char* inner = part == 1 && !name.in_encoder ? "fn.cross_attn." : "fn.";
  return ForeignWeight{.name = prefix + inner + found->second};
}

// Rows of the first FFW matrix, or what the program's default factor makes of the width.
int64_t FfwWidth(const TensorSource& source, const std::string& side, int64_t width) {
  const auto found = source.shapes().find(side + ".layers.0.2.fn.ff.0.weight");
  return found == source.shapes().end() || found->second.empty() ? kFfwFactor * width : found->second[0];
}

// The frequencies are a function of the config: they are checked and dropped.
absl::Status DropFrequencies(const TensorSource& source, const ModelConfig& config, ForeignReading& reading) {
  for (const char* side : {"encoder.", "decoder."}) {
    const std::string name = std::string(side) + kFrequencies;
    if (!source.Has(name)) continue;
    RETRO_ASSIGN_OR_RETURN(const at::Tensor stored, source.Read(name));
    const at::Tensor exponents = at::arange(config.rotary_size / 2, at::kDouble) * (-2.0 / config.rotary_size);
    const at::Tensor expected = at::pow(config.rotary_base, exponents).to(at::kFloat);
    if (stored.sizes() != expected.sizes() || !at::allclose(stored, expected, /*rtol=*/1e-5, /*atol=*/0)) {
      return absl::InvalidArgumentError(StrCat(source.path(), ": tensor '", name,
                                               "' holds other frequencies than the program's own, which are the ",
                                               "only ones known here"));
    }
    reading.dropped[name] = "a function of the config";
  }
  return absl::OkStatus();
}

std::vector<int64_t> LayersUpTo(int64_t last) {
  std::vector<int64_t> layers;
  for (int64_t layer = 1; layer <= last; ++layer) layers.push_back(layer);
  return layers;
}

void ReadSizes(ForeignConfig& fields, const TensorSource& source, ModelConfig& config) {
  config.encoder_width = fields.Integer("enc_dim", 896);
  config.encoder_layers = fields.Integer("enc_depth", 2);
  config.width = fields.Integer("dec_dim", 1536);
  config.layers = fields.Integer("dec_depth", 12);
  config.heads = kHeads;
  config.head_size = fields.Integer("dim_head", 64);
  config.encoder_heads = kHeads;
  config.encoder_head_size = config.head_size;
  config.ffw_width = FfwWidth(source, "decoder", config.width);
  config.encoder_ffw_width = FfwWidth(source, "encoder", config.encoder_width);
  config.vocabulary = fields.Integer("num_tokens");
  config.max_length = fields.Integer("max_seq_len", 2048);
  config.chunk_length = fields.Integer("chunk_size", 64);
  config.neighbour_length = 2 * config.chunk_length;
  config.pad_id = fields.Integer("pad_id", 0);
  // Numbers beyond the last layer are without effect there.
  for (const int64_t layer : fields.Integers("dec_cross_attn_layers", {1, 3, 6, 9})) {
    if (layer >= 1 && layer <= config.layers) config.cca_layers.push_back(layer);
  }
  std::sort(config.cca_layers.begin(), config.cca_layers.end());
  for (const int64_t layer : fields.Integers("enc_cross_attn_layers", LayersUpTo(config.encoder_layers))) {
    if (layer >= 1 && layer <= config.encoder_layers) config.encoder_cca_layers.push_back(layer);
  }
  std::sort(config.encoder_cca_layers.begin(), config.encoder_cca_layers.end());
}

// Norms and residuals: plain, or after DeepNet (Wang et al. 2022, figure 2).
void ReadNorms(ForeignConfig& fields, ModelConfig& config) {
  config.post_norm = fields.Flag("use_deepnet", false);
  const bool gated = fields.Flag("gated_rmsnorm", false);
  config.norm = gated ? NormKind::kRmsFloorGated : config.post_norm ? NormKind::kLayer : NormKind::kRmsFloor;
  config.norm_eps = config.norm == NormKind::kLayer ? kLayerNormEps : kNormFloor;
  config.final_norm = !config.post_norm;
  config.encoder_final_norm = !config.post_norm;
  const auto decoder_layers = static_cast<double>(config.layers);
  const double encoder_scale = 0.81 * std::pow(std::pow(config.encoder_layers, 4) * decoder_layers, 0.0625);
  const double scale = fields.Number("dec_scale_residual", std::pow(3 * decoder_layers, 0.25));
  const double given_encoder_scale = fields.Number("enc_scale_residual", encoder_scale);
  if (!config.post_norm) return;
  config.residual_scale = scale;
  config.encoder_residual_scale = given_encoder_scale;
}

absl::StatusOr<ForeignReading> Read(const Json& json, const TensorSource& source) {
  ForeignConfig fields(json, "config");
  ForeignReading reading;
  ModelConfig& config = reading.config;
  ReadSizes(fields, source, config);
  ReadNorms(fields, config);
  fields.Ignore(
      {"heads", "heads_effective", "enc_attn_dropout", "enc_ff_dropout", "dec_attn_dropout", "dec_ff_dropout"});
  RETRO_RETURN_IF_ERROR(fields.status());
  config.embedding_width = config.encoder_width == config.width ? 0 : config.encoder_width;
  config.shared_embedding = true;
  config.tied_readout = false;
  config.readout_bias = true;
  config.activation = Activation::kGeluErf;
  config.output_biases = true;
  config.learned_positions = LearnedPositions::kDecoder;
  config.positions = Positions::kRotary;
  config.rotary_size = std::min(config.head_size, kRotarySizeMax);
  config.mask_pad = true;
  config.null_key = true;
  config.encoder_projection = true;
  reading.place = [norm = config.norm](const WeightSpec& spec) { return Place(spec, norm); };
  RETRO_RETURN_IF_ERROR(DropFrequencies(source, config, reading));
  reading.unused_keys = fields.UnusedKeys();
  return reading;
}

}  // namespace

ForeignFormat LucidrainsFormat() { return {"lucidrains", "retro-pytorch 0.3.9", Read, nullptr}; }

}  // namespace retro
