// The foreign format "paper": the names and layout of the fp64 reference implementation. Matrices stand as [in, out].
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/foreign_config.h"
#include "generator_service/checkpoints/foreign_formats.h"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kNeighbours[] = "k";  // decides nothing of the form

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
                                                                   {"mask_pad", "mask_pad"},
                                                                   {"offset", "offset"}};
  return *keys;
}

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

absl::StatusOr<ForeignWeight> Place(const WeightSpec& spec) {
  if (spec.kind == WeightKind::kReadout) return ForeignWeight{.name = "read", .transposed = true};
  const bool in_encoder = spec.name.starts_with("encoder.");
  std::vector<std::string> foreign;
  for (const absl::string_view part : absl::StrSplit(spec.name, '.')) {
    foreign.push_back(ForeignPart(ToStd(part), in_encoder));
  }
  return ForeignWeight{.name = absl::StrJoin(foreign, "."), .transposed = spec.kind == WeightKind::kMatrix};
}

absl::StatusOr<ForeignReading> Read(const Json& config, const TensorSource&) {
  Json own = Json::object();
  for (const auto& [key, value] : config.items()) {
    if (key == kNeighbours) continue;
    const auto found = ConfigKeys().find(key);
    if (found == ConfigKeys().end()) return absl::InvalidArgumentError(StrCat("unknown key '", key, "'"));
    own[found->second] = value;
  }
  ForeignReading reading{.place = Place};
  RETRO_ASSIGN_OR_RETURN(reading.config, ModelConfigFromJson(own.dump()));
  ForeignConfig fields(config, "config");
  reading.trained_neighbours = fields.Integer(kNeighbours, kTrainedNeighbours);
  RETRO_RETURN_IF_ERROR(fields.status());
  return reading;
}

Json WriteConfig(const ModelConfig& config) {
  const Json own = Json::parse(ModelConfigToJson(config));
  Json foreign = Json::object();
  for (const auto& [theirs, ours] : ConfigKeys()) foreign[theirs] = own[ours];
  return foreign;
}

}  // namespace

ForeignFormat PaperFormat() { return {"paper", "the fp64 reference implementation", Read, WriteConfig}; }

}  // namespace retro
