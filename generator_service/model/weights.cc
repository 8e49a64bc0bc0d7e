#include "generator_service/model/weights.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "generator_service/model/attention.h"
#include "generator_service/model/position_tables.h"
#include "generator_service/model/weight_table.h"

namespace retro {
namespace {

absl::Status CheckAgainstTable(const ModelConfig& config, const WeightMap& weights) {
  const std::vector<WeightSpec> table = WeightTable(config);
  for (const WeightSpec& spec : table) {
    const auto found = weights.find(spec.name);
    if (found == weights.end()) return absl::InvalidArgumentError(StrCat("weight '", spec.name, "' is missing"));
    if (found->second.sizes() != at::IntArrayRef(spec.shape)) {
      return absl::InvalidArgumentError(StrCat("weight '", spec.name, "' has shape ",
                                               ShapeString(found->second.sizes()), ", the config asks for ",
                                               ShapeString(spec.shape)));
    }
  }
  if (weights.size() == table.size()) return absl::OkStatus();
  std::set<std::string_view> known;
  for (const WeightSpec& spec : table) known.insert(spec.name);
  for (const auto& [name, tensor] : weights) {
    if (!known.contains(name)) {
      return absl::InvalidArgumentError(StrCat("weight '", name, "' is not part of this config's model"));
    }
  }
  return absl::OkStatus();
}

class Binder {
 public:
  Binder(const ModelConfig& config, const WeightMap& weights) : config_(config), weights_(weights) {}

  AttentionWeights Attention(const std::string& prefix, int64_t heads, DistanceRange distances) const {
    AttentionWeights bound;
    bound.norm = At(prefix + "norm");
    bound.query = Linear(At(prefix + "query"));
    bound.key = Linear(At(prefix + "key"));
    bound.value = Linear(At(prefix + "value"));
    bound.output = Linear(At(prefix + "output"));
    if (config_.position_biases) {
      bound.content_bias = At(prefix + "content_bias").view({heads, 1, -1});
      bound.position_bias = At(prefix + "position_bias").view({heads, 1, -1});
    }
    bound.positions = PositionTable(At(prefix + "position"), distances.largest, distances.count, heads);
    bound.heads = heads;
    return bound;
  }

  FfwWeights Ffw(const std::string& prefix) const {
    return {At(prefix + "norm"), Linear(At(prefix + "up")), Linear(At(prefix + "down")), config_.activation};
  }

  ModelWeights Decoder() const {
    ModelWeights bound;
    bound.embedding = At("decoder.embedding");
    for (int64_t layer = 1; layer <= config_.layers; ++layer) {
      const std::string prefix = StrCat("decoder.", layer, ".");
      LayerWeights& weights = bound.layers.emplace_back();
      weights.attention = Attention(prefix + "attention.", config_.heads, DecoderDistances(config_));
      if (std::ranges::count(config_.cca_layers, layer) > 0) {
        weights.cca = Attention(prefix + "cca.", config_.heads, CcaDistances(config_));
      }
      weights.ffw = Ffw(prefix + "ffw.");
    }
    bound.final_norm = At("decoder.final_norm");
    bound.readout = Linear(config_.tied_readout ? bound.embedding : At("decoder.readout"));
    return bound;
  }

  EncoderWeights Encoder() const {
    EncoderWeights bound;
    bound.embedding = At(config_.shared_embedding ? "decoder.embedding" : "encoder.embedding");
    if (config_.conditioning_norm) bound.conditioning_norm = At("encoder.conditioning_norm");
    for (int64_t layer = 1; layer <= config_.encoder_layers; ++layer) {
      const std::string prefix = StrCat("encoder.", layer, ".");
      LayerWeights& weights = bound.layers.emplace_back();
      weights.attention = Attention(prefix + "attention.", config_.encoder_heads, EncoderDistances(config_));
      if (std::ranges::count(config_.encoder_cca_layers, layer) > 0) {
        weights.cca = Attention(prefix + "cca.", config_.encoder_heads, ConditioningDistances(config_));
      }
      weights.ffw = Ffw(prefix + "ffw.");
    }
    if (config_.encoder_final_norm) bound.final_norm = At("encoder.final_norm");
    return bound;
  }

 private:
  const at::Tensor& At(const std::string& name) const { return weights_.at(name); }

  const ModelConfig& config_;
  const WeightMap& weights_;
};

}  // namespace

absl::StatusOr<ModelWeights> BindWeights(const ModelConfig& config, const WeightMap& weights) {
  RETRO_RETURN_IF_ERROR(CheckAgainstTable(config, weights));
  const Binder binder(config, weights);
  ModelWeights bound = binder.Decoder();
  if (!config.cca_layers.empty()) bound.encoder = binder.Encoder();
  return bound;
}

}  // namespace retro
