#include "generator_service/model/weights.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "generator_service/model/attention.h"
#include "generator_service/model/huge_tensor.h"
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

// What tells one attention of a model from another.
struct AttentionPlace {
  std::string prefix;
  int64_t heads = 0;
  int64_t head_size = 0;
  DistanceRange distances;
  int64_t lowest_bucket = 0;  // of the distances key - query
  Rotary rotary;
};

class Binder {
 public:
  Binder(const ModelConfig& config, PlacedWeights weights, SinusoidCache* sinusoids)
      : config_(config), weights_(std::move(weights)), sinusoids_(sinusoids) {
    const bool rotates = config.positions == Positions::kRotary || config.positions == Positions::kRotaryDecoder;
    if (!rotates) return;
    const Rotary rotary(config.rotary_size, config.rotary_base, At("decoder.1.attention.norm").device());
    decoder_rotary_ = rotary;
    if (config.positions == Positions::kRotary) other_rotary_ = rotary;
  }

  ModelWeights Decoder() const {
    ModelWeights bound;
    bound.embedding = BoundEmbedding("decoder.embedding");
    bound.positions = Find("decoder.positions");
    if (EmbeddingWidth(config_) != config_.width) {
      bound.embedding_projection = BoundLinear("decoder.embedding_projection");
    }
    for (int64_t layer = 1; layer <= config_.layers; ++layer) {
      const std::string prefix = StrCat("decoder.", layer, ".");
      LayerWeights& weights = bound.layers.emplace_back();
      weights.attention = Attention({prefix + "attention.", config_.heads, config_.head_size, DecoderDistances(config_),
                                     LowestCausalBucket(config_.attention_buckets), decoder_rotary_});
      if (std::ranges::count(config_.cca_layers, layer) > 0) {
        weights.cca = Attention({prefix + "cca.", config_.heads, config_.head_size, CcaDistances(config_),
                                 LowestBucket(config_.cca_buckets), other_rotary_});
      }
      weights.ffw = Ffw(prefix + "ffw.");
    }
    if (config_.final_norm) bound.final_norm = BoundNorm("decoder.final_norm");
    const at::Tensor readout_bias = Find("decoder.readout_bias");
    bound.readout =
        config_.tied_readout ? bound.embedding.Tied(readout_bias) : BoundLinear("decoder.readout", readout_bias);
    return bound;
  }

  // Shares the embedding of `decoder` if the config has it so.
  EncoderWeights Encoder(const ModelWeights& decoder) const {
    EncoderWeights bound;
    bound.embedding = config_.shared_embedding ? decoder.embedding : BoundEmbedding("encoder.embedding");
    if (config_.learned_positions == LearnedPositions::kBoth) {
      bound.positions = At("decoder.positions").narrow(0, 0, config_.neighbour_length);
    }
    if (config_.conditioning_norm) bound.conditioning_norm = BoundNorm("encoder.conditioning_norm");
    for (int64_t layer = 1; layer <= config_.encoder_layers; ++layer) {
      const std::string prefix = StrCat("encoder.", layer, ".");
      LayerWeights& weights = bound.layers.emplace_back();
      weights.attention =
          Attention({prefix + "attention.", config_.encoder_heads, config_.encoder_head_size, EncoderDistances(config_),
                     LowestBucket(config_.encoder_attention_buckets), other_rotary_});
      if (std::ranges::count(config_.encoder_cca_layers, layer) > 0) {
        weights.cca =
            Attention({prefix + "cca.", config_.encoder_heads, config_.encoder_head_size,
                       ConditioningDistances(config_), LowestBucket(config_.encoder_cca_buckets), other_rotary_});
      }
      weights.ffw = Ffw(prefix + "ffw.");
    }
    if (config_.encoder_final_norm) bound.final_norm = BoundNorm("encoder.final_norm");
    if (config_.encoder_projection) bound.projection = BoundLinear("encoder.projection");
    return bound;
  }

 private:
  const at::Tensor& At(const std::string& name) const { return weights_.tensors.at(name); }

  // Undefined if the config's model has none of this name.
  at::Tensor Find(const std::string& name) const {
    const auto found = weights_.tensors.find(name);
    return found == weights_.tensors.end() ? at::Tensor() : found->second;
  }

  Norm BoundNorm(const std::string& name) const {
    return {config_.norm, config_.norm_eps, At(name), Find(name + "_bias"), Find(name + "_gate")};
  }

  // The norm of a part of a layer goes before it, or after its residual.
  template <typename PartWeights>
  void BindNorm(const std::string& prefix, PartWeights& part) const {
    const Norm norm = BoundNorm(prefix + "norm");
    if (!config_.post_norm) {
      part.norm = norm;
    } else {
      part.residual = {prefix.starts_with("encoder.") ? config_.encoder_residual_scale : config_.residual_scale, norm};
    }
  }

  Linear BoundLinear(const std::string& name) const { return BoundLinear(name, Find(name + "_bias")); }

  Linear BoundLinear(const std::string& name, const at::Tensor& bias) const {
    const auto packed = weights_.packed.find(name);
    return packed == weights_.packed.end() ? Linear(At(name), bias) : Linear(packed->second, bias);
  }

  Embedding BoundEmbedding(const std::string& name) const {
    const auto packed = weights_.packed.find(name);
    return packed == weights_.packed.end() ? Embedding(At(name)) : Embedding(packed->second);
  }

  at::Tensor BoundTable(const std::string& matrix, DistanceRange distances, int64_t heads) const {
    const at::Tensor& stored = At(matrix);
    const at::Tensor summed = weights_.table_sums ? stored.to(*weights_.table_sums) : stored;
    at::Tensor table = PositionTable(summed, distances.largest, distances.count, heads, sinusoids_);
    if (!weights_.tables) return table;
    if (!table.is_cpu()) return table.to(*weights_.tables);
    return EmptyInHugePages(table.sizes(), *weights_.tables).copy_(table);
  }

  // [heads * head] -> [heads, 1, head]
  at::Tensor FindByHead(const std::string& name, int64_t heads) const {
    const at::Tensor found = Find(name);
    return found.defined() ? found.view({heads, 1, -1}) : found;
  }

  AttentionWeights Attention(const AttentionPlace& place) const {
    const std::string& prefix = place.prefix;
    AttentionWeights bound;
    BindNorm(prefix, bound);
    bound.query = BoundLinear(prefix + "query");
    bound.key = BoundLinear(prefix + "key");
    bound.value = BoundLinear(prefix + "value");
    bound.output = BoundLinear(prefix + "output");
    bound.heads = place.heads;
    if (config_.attention_scale) bound.scale = 1 / std::sqrt(static_cast<double>(place.head_size));
    bound.content_bias = FindByHead(prefix + "content_bias", place.heads);
    bound.position_bias = FindByHead(prefix + "position_bias", place.heads);
    if (config_.positions == Positions::kTransformerXl) {
      bound.positions = BoundTable(prefix + "position", place.distances, place.heads);
      bound.largest_distance = place.distances.largest;
    }
    bound.buckets = Find(prefix + "buckets");
    bound.lowest_bucket = place.lowest_bucket;
    bound.rotary = place.rotary;
    bound.null_key = FindByHead(prefix + "null_key", place.heads);
    bound.null_value = FindByHead(prefix + "null_value", place.heads);
    return bound;
  }

  FfwWeights Ffw(const std::string& prefix) const {
    FfwWeights bound;
    BindNorm(prefix, bound);
    if (config_.gated_ffw) bound.gate = BoundLinear(prefix + "gate");
    bound.up = BoundLinear(prefix + "up");
    bound.down = BoundLinear(prefix + "down");
    bound.activation = config_.activation;
    return bound;
  }

  const ModelConfig& config_;
  const PlacedWeights weights_;
  SinusoidCache* const sinusoids_;  // may be null
  Rotary decoder_rotary_;           // of the decoder's self-attention
  Rotary other_rotary_;             // of every other attention
};

ModelWeights Bind(const ModelConfig& config, PlacedWeights weights, SinusoidCache* sinusoids) {
  const Binder binder(config, std::move(weights), sinusoids);
  ModelWeights bound = binder.Decoder();
  if (!config.cca_layers.empty()) bound.encoder = binder.Encoder(bound);
  return bound;
}

}  // namespace

absl::StatusOr<ModelWeights> BindWeights(const ModelConfig& config, const WeightMap& weights,
                                         SinusoidCache* sinusoids) {
  RETRO_RETURN_IF_ERROR(CheckAgainstTable(config, weights));
  return Bind(config, {.tensors = weights}, sinusoids);
}

absl::StatusOr<ModelWeights> BindWeights(const ModelConfig& config, const WeightMap& weights, const at::Device& device,
                                         ModelNumbers numbers) {
  RETRO_RETURN_IF_ERROR(CheckAgainstTable(config, weights));
  SinusoidCache sinusoids;  // all layers' tables are made from the same rows
  ModelWeights bound = Bind(config, PlaceWeights(config, weights, device, numbers), &sinusoids);
  bound.apart = device.is_cpu() && numbers == ModelNumbers::kFp32;
  return bound;
}

}  // namespace retro
