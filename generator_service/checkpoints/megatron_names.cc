#include "generator_service/checkpoints/megatron_names.h"

namespace retro {
namespace {

constexpr int64_t kShallowLayers = 15;
constexpr int64_t kFirstShallow = 6;
constexpr int64_t kFirstDeep = 9;
constexpr int64_t kStep = 3;

// "query_bias" -> "query", and the foreign suffix that says so.
std::string WithoutBias(const std::string& leaf, std::string& suffix) {
  suffix = leaf.ends_with("_bias") ? ".bias" : ".weight";
  return leaf.substr(0, leaf.find("_bias"));
}

}  // namespace

std::vector<int64_t> MegatronCcaLayers(int64_t layers) {
  std::vector<int64_t> cca;
  for (int64_t layer = layers <= kShallowLayers ? kFirstShallow : kFirstDeep; layer <= layers; layer += kStep) {
    cca.push_back(layer);
  }
  return cca;
}

ForeignWeight PlaceMegatronAttention(const MegatronAttentionNames& names, const std::string& leaf, int64_t heads) {
  std::string suffix;
  const std::string matrix = WithoutBias(leaf, suffix);
  if (matrix == "output") return {.name = names.output + suffix};
  const bool is_cross = !names.query.empty();
  if (matrix == "query" && is_cross) return {.name = names.query + suffix};
  const int64_t part = matrix == "query" ? 0 : matrix == "key" ? 1 : matrix == "value" ? 2 : -1;
  if (part < 0) return {};
  return {.name = names.fused + suffix, .part = is_cross ? part - 1 : part, .parts = is_cross ? 2 : 3, .groups = heads};
}

ForeignWeight PlaceMegatronFfw(const std::string& first, const std::string& second, const std::string& leaf,
                               bool gated) {
  std::string suffix;
  const std::string matrix = WithoutBias(leaf, suffix);
  if (matrix == "down") return {.name = second + suffix};
  if (matrix == "gate") return {.name = first + suffix, .part = 0, .parts = 2};
  if (matrix == "up") return {.name = first + suffix, .part = gated ? 1 : 0, .parts = gated ? 2 : 1};
  return {};
}

void ReadMegatronRotary(ForeignConfig& fields, ModelConfig& config) {
  config.positions = Positions::kRotaryDecoder;
  config.rotary_base = fields.Number("rotary_base", config.rotary_base);
  const double share = fields.Number("rotary_percent", 1.0);
  if (share > 0 && share <= 1) {
    config.rotary_size = static_cast<int64_t>(static_cast<double>(config.head_size) * share);
  } else {
    fields.Fail("'rotary_percent' must be above 0 and at most 1");
  }
}

void SetMegatronEncoder(ModelConfig& config) {
  config.encoder_width = config.width;
  config.encoder_ffw_width = config.ffw_width;
  config.encoder_heads = config.heads;
  config.encoder_head_size = config.head_size;
  config.encoder_cca_layers = {1};
}

void SetMegatronChoices(ModelConfig& config) {
  config.shared_embedding = true;
  config.conditioning_cca_norm = true;
  config.partial_chunk_first = true;
}

}  // namespace retro
