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

  // `inner` = heads * head size.
  void AddAttention(const std::string& prefix, int64_t query_width, int64_t key_width, int64_t inner) {
    Add(prefix + "norm", {query_width}, WeightKind::kGain);
    Add(prefix + "query", {inner, query_width}, WeightKind::kMatrix);
    Add(prefix + "key", {inner, key_width}, WeightKind::kMatrix);
    Add(prefix + "value", {inner, key_width}, WeightKind::kMatrix);
    Add(prefix + "position", {inner, query_width}, WeightKind::kMatrix);
    Add(prefix + "output", {query_width, inner}, WeightKind::kMatrix);
    if (config_.position_biases) {
      Add(prefix + "content_bias", {inner}, WeightKind::kPositionBias);
      Add(prefix + "position_bias", {inner}, WeightKind::kPositionBias);
    }
  }

  void AddFfw(const std::string& prefix, int64_t width, int64_t ffw_width) {
    Add(prefix + "norm", {width}, WeightKind::kGain);
    Add(prefix + "up", {ffw_width, width}, WeightKind::kMatrix);
    Add(prefix + "down", {width, ffw_width}, WeightKind::kMatrix);
  }

  void AddDecoder() {
    const int64_t inner = config_.heads * config_.head_size;
    Add("decoder.embedding", {config_.vocabulary, config_.width}, WeightKind::kEmbedding);
    for (int64_t layer = 1; layer <= config_.layers; ++layer) {
      const std::string prefix = StrCat("decoder.", layer, ".");
      AddAttention(prefix + "attention.", config_.width, config_.width, inner);
      if (std::ranges::count(config_.cca_layers, layer) > 0) {
        AddAttention(prefix + "cca.", config_.width, config_.encoder_width, inner);
      }
      AddFfw(prefix + "ffw.", config_.width, config_.ffw_width);
    }
    Add("decoder.final_norm", {config_.width}, WeightKind::kGain);
    if (!config_.tied_readout) Add("decoder.readout", {config_.vocabulary, config_.width}, WeightKind::kReadout);
  }

  void AddEncoder() {
    const int64_t inner = config_.encoder_heads * config_.encoder_head_size;
    const int64_t width = config_.encoder_width;
    if (!config_.shared_embedding) Add("encoder.embedding", {config_.vocabulary, width}, WeightKind::kEmbedding);
    if (config_.conditioning_norm) Add("encoder.conditioning_norm", {config_.width}, WeightKind::kGain);
    for (int64_t layer = 1; layer <= config_.encoder_layers; ++layer) {
      const std::string prefix = StrCat("encoder.", layer, ".");
      AddAttention(prefix + "attention.", width, width, inner);
      if (std::ranges::count(config_.encoder_cca_layers, layer) > 0) {
        AddAttention(prefix + "cca.", width, config_.width, inner);
      }
      AddFfw(prefix + "ffw.", width, config_.encoder_ffw_width);
    }
    if (config_.encoder_final_norm) Add("encoder.final_norm", {width}, WeightKind::kGain);
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
