#include "generator_service/checkpoints/paper_importer.h"

#include <ATen/ATen.h>

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/torch_status.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "generator_service/model/weight_table.h"
#include "generator_service/model/weights.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;

// The reference's config keys and ours.
const std::map<std::string, std::string>& ConfigKeys() {
  static const auto* keys = new std::map<std::string, std::string>{{"d", "width"},
                                                                   {"ffw", "ffw_width"},
                                                                   {"heads", "heads"},
                                                                   {"head", "head_size"},
                                                                   {"layers", "layers"},
                                                                   {"P", "cca_layers"},
                                                                   {"d_enc", "encoder_width"},
                                                                   {"ffw_enc", "encoder_ffw_width"},
                                                                   {"enc_heads", "encoder_heads"},
                                                                   {"enc_head", "encoder_head_size"},
                                                                   {"enc_layers", "encoder_layers"},
                                                                   {"P_enc", "encoder_cca_layers"},
                                                                   {"vocab", "vocabulary"},
                                                                   {"chunk", "chunk_length"},
                                                                   {"r", "neighbour_length"},
                                                                   {"n", "max_length"},
                                                                   {"eps", "norm_eps"},
                                                                   {"act", "activation"},
                                                                   {"uv", "position_biases"},
                                                                   {"tied", "tied_readout"},
                                                                   {"share_emb", "shared_embedding"},
                                                                   {"enc_final_norm", "encoder_final_norm"},
                                                                   {"norm_cond", "conditioning_norm"},
                                                                   {"mask_pad", "mask_pad"}};
  return *keys;
}

// Keys about a reference's inputs, not about the model.
bool IsInputKey(const std::string& key) { return key == "k" || key == "offset"; }

// One part of a name, ours to theirs. Parts that are not here are the same in both: numbers, norm, final_norm.
std::string ForeignPart(std::string_view part, bool in_encoder) {
  static const auto* parts = new std::map<std::string, std::string, std::less<>>{
      {"decoder", "dec"},    {"encoder", "enc"}, {"embedding", "emb"},  {"conditioning_norm", "cond_norm"},
      {"attention", "attn"}, {"query", "q"},     {"key", "k"},          {"value", "v"},
      {"position", "r"},     {"output", "o"},    {"content_bias", "u"}, {"position_bias", "v_bias"},
      {"up", "w1"},          {"down", "w2"}};
  if (part == "cca" && in_encoder) return "ca";
  const auto found = parts->find(part);
  return found == parts->end() ? std::string(part) : found->second;
}

std::string ForeignName(const WeightSpec& spec) {
  if (spec.kind == WeightKind::kReadout) return "read";
  const bool in_encoder = spec.name.starts_with("encoder.");
  std::vector<std::string> foreign;
  for (const absl::string_view part : absl::StrSplit(spec.name, '.'))
    foreign.push_back(ForeignPart(ToStd(part), in_encoder));
  return absl::StrJoin(foreign, ".");
}

bool IsTransposed(WeightKind kind) { return kind == WeightKind::kMatrix || kind == WeightKind::kReadout; }

absl::StatusOr<ModelConfig> ReadConfig(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("config")) json = Json(json["config"]);
  if (!json.is_object()) return absl::InvalidArgumentError(StrCat(path, " is not JSON with a config"));
  Json own = Json::object();
  for (const auto& [key, value] : json.items()) {
    if (IsInputKey(key)) continue;
    const auto found = ConfigKeys().find(key);
    if (found == ConfigKeys().end()) return absl::InvalidArgumentError(StrCat(path, ": unknown key '", key, "'"));
    own[found->second] = value;
  }
  absl::StatusOr<ModelConfig> config = ModelConfigFromJson(own.dump());
  if (!config.ok()) return absl::InvalidArgumentError(StrCat(path, ": ", MessageOf(config.status())));
  return config;
}

absl::StatusOr<WeightMap> ReadWeights(const SafetensorsFile& file, const ModelConfig& config) {
  WeightMap weights;
  std::set<std::string> used;
  for (const WeightSpec& spec : WeightTable(config)) {
    const std::string name = ForeignName(spec);
    std::vector<int64_t> shape = spec.shape;
    if (IsTransposed(spec.kind)) std::swap(shape[0], shape[1]);
    RETRO_ASSIGN_OR_RETURN(const at::Tensor weight, ReadWeight(file, name, shape));
    weights.emplace(spec.name, IsTransposed(spec.kind) ? weight.t().contiguous() : weight);
    used.insert(name);
  }
  for (const auto& [name, tensor] : file.tensors()) {
    if (!used.contains(name)) {
      return absl::InvalidArgumentError(
          StrCat(file.path(), ": tensor '", name, "' is not part of the model of this config"));
    }
  }
  return weights;
}

}  // namespace

absl::StatusOr<ImportedModel> ImportPaper(const std::string& config_path, const std::string& weights_path) {
  ImportedModel imported;
  RETRO_ASSIGN_OR_RETURN(imported.config, ReadConfig(config_path));
  RETRO_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(weights_path));
  RETRO_ASSIGN_OR_RETURN(imported.weights,
                         CatchTorch([&]() -> absl::StatusOr<WeightMap> { return ReadWeights(file, imported.config); }));
  return imported;
}

}  // namespace retro
