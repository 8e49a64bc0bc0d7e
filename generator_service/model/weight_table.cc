#include "generator_service/model/weight_table.h"

#include <algorithm>
#include <utility>

#include "common/base/strings.h"

namespace retro {
namespace {

class TableBuilder {
 public:
  explicit TableBuilder(const ModelConfig& config) : config_(config) {}

  void Add(std::string name, std::vector<int64_t> shape, WeightKind kind) {
    table_.push_back({std::move(name), std::move(shape), kind});
  }

  void AddNorm(const std::string& name, int64_t width) {
    Add(name, {width}, WeightKind::kGain);
    if (config_.norm == NormKind::kLayer) Add(name + "_bias", {width}, WeightKind::kBias);
    if (config_.norm == NormKind::kRmsFloorGated) Add(name + "_gate", {width}, WeightKind::kGain);
  }

  void AddMatrix(const std::string& name, int64_t outputs, int64_t inputs, bool biased) {
    Add(name, {outputs, inputs}, WeightKind::kMatrix);
    if (biased) Add(name + "_bias", {outputs}, WeightKind::kBias);
  }

  // `inner` = heads * head size; `buckets` of the bias by distance.
  void AddAttention(const std::string& prefix, int64_t query_width, int64_t key_width, int64_t heads, int64_t head_size,
                    int64_t buckets) {
    const int64_t inner = heads * head_size;
    AddNorm(prefix + "norm", query_width);
    AddMatrix(prefix + "query", inner, query_width, config_.query_key_value_biases);
    AddMatrix(prefix + "key", inner, key_width, config_.query_key_value_biases);
    AddMatrix(prefix + "value", inner, key_width, config_.query_key_value_biases);
    if (config_.positions == Positions::kTransformerXl) {
      Add(prefix + "position", {inner, query_width}, WeightKind::kMatrix);
    }
    AddMatrix(prefix + "output", query_width, inner, config_.output_biases);
    if (config_.positions == Positions::kTransformerXl && config_.position_biases) {
      Add(prefix + "content_bias", {inner}, WeightKind::kPositionBias);
      Add(prefix + "position_bias", {inner}, WeightKind::kPositionBias);
    }
    if (config_.positions == Positions::kBuckets) Add(prefix + "buckets", {buckets, heads}, WeightKind::kBuckets);
  }

  void AddFfw(const std::string& prefix, int64_t width, int64_t ffw_width) {
    AddNorm(prefix + "norm", width);
    if (config_.gated_ffw) AddMatrix(prefix + "gate", ffw_width, width, config_.output_biases);
    AddMatrix(prefix + "up", ffw_width, width, config_.output_biases);
    AddMatrix(prefix + "down", width, ffw_width, config_.output_biases);
  }

  void AddEmbedding() {
    const int64_t width = EmbeddingWidth(config_);
    Add("decoder.embedding", {config_.vocabulary, width}, WeightKind::kEmbedding);
    if (config_.learned_positions != LearnedPositions::kNone) {
      Add("decoder.positions", {config_.max_length, width}, WeightKind::kPositions);
    }
    if (width != config_.width) AddMatrix("decoder.embedding_projection", config_.width, width, config_.output_biases);
  }

  void AddDecoder() {
    const ModelConfig& c = config_;
    AddEmbedding();
    for (int64_t layer = 1; layer <= c.layers; ++layer) {
      const std::string prefix = StrCat("decoder.", layer, ".");
      AddAttention(prefix + "attention.", c.width, c.width, c.heads, c.head_size, c.attention_buckets);
      if (std::ranges::count(c.cca_layers, layer) > 0) {
        AddAttention(prefix + "cca.", c.width, EncodedWidth(c), c.heads, c.head_size, c.cca_buckets);
        if (c.null_key) {
          Add(prefix + "cca.null_key", {c.heads * c.head_size}, WeightKind::kNullKey);
          Add(prefix + "cca.null_value", {c.heads * c.head_size}, WeightKind::kNullKey);
        }
      }
      AddFfw(prefix + "ffw.", c.width, c.ffw_width);
    }
    if (c.final_norm) AddNorm("decoder.final_norm", c.width);
    if (!c.tied_readout) Add("decoder.readout", {c.vocabulary, c.width}, WeightKind::kReadout);
    if (c.readout_bias) Add("decoder.readout_bias", {c.vocabulary}, WeightKind::kBias);
  }

  void AddEncoder() {
    const ModelConfig& c = config_;
    const int64_t width = c.encoder_width;
    if (!c.shared_embedding) Add("encoder.embedding", {c.vocabulary, width}, WeightKind::kEmbedding);
    if (c.conditioning_norm) AddNorm("encoder.conditioning_norm", c.width);
    for (int64_t layer = 1; layer <= c.encoder_layers; ++layer) {
      const std::string prefix = StrCat("encoder.", layer, ".");
      AddAttention(prefix + "attention.", width, width, c.encoder_heads, c.encoder_head_size,
                   c.encoder_attention_buckets);
      if (std::ranges::count(c.encoder_cca_layers, layer) > 0) {
        AddAttention(prefix + "cca.", width, c.width, c.encoder_heads, c.encoder_head_size, c.encoder_cca_buckets);
      }
      AddFfw(prefix + "ffw.", width, c.encoder_ffw_width);
    }
    if (c.encoder_final_norm) AddNorm("encoder.final_norm", width);
    if (c.encoder_projection) AddMatrix("encoder.projection", c.width, width, c.output_biases);
  }

  std::vector<WeightSpec> Take() { return std::move(table_); }

 private:
  const ModelConfig& config_;
  std::vector<WeightSpec> table_;
};

}  // namespace

int64_t WeightSpec::element_count() const {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  return count;
}

std::vector<WeightSpec> WeightTable(const ModelConfig& config) {
  TableBuilder builder(config);
  builder.AddDecoder();
  if (!config.cca_layers.empty()) builder.AddEncoder();
  return builder.Take();
}

int64_t CountMatrixParameters(const std::vector<WeightSpec>& table) {
  int64_t count = 0;
  for (const WeightSpec& weight : table) {
    if (weight.kind == WeightKind::kMatrix) count += weight.element_count();
  }
  return count;
}

int64_t CountParameters(const std::vector<WeightSpec>& table) {
  int64_t count = 0;
  for (const WeightSpec& weight : table) count += weight.element_count();
  return count;
}

}  // namespace retro
