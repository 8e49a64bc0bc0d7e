// Any bytes as a model's config: it is refused, or it is valid and survives being written and read again.
#include "generator_service/model/config.h"
#include "tests/fuzz/fuzz.h"

namespace retro {

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds;
  ModelConfig config = *PresetModelConfig("retro-demo");
  seeds.push_back(ModelConfigToJson(config));
  config.positions = Positions::kBuckets;
  config.attention_buckets = config.cca_buckets = 8;
  config.encoder_attention_buckets = config.encoder_cca_buckets = 8;
  config.norm = NormKind::kRmsEpsOutside;
  config.additive_pad_mask = true;
  seeds.push_back(ModelConfigToJson(config));
  config.positions = Positions::kRotary;
  config.rotary_size = 16;
  config.norm = NormKind::kLayer;
  config.post_norm = true;
  config.residual_scale = 1.75;
  seeds.push_back(ModelConfigToJson(config));
  seeds.emplace_back(
      R"({"width":8,"ffw_width":8,"heads":1,"head_size":8,"layers":1,"cca_layers":[],"vocabulary":9,"chunk_length":4,)"
      R"("neighbour_length":8,"max_length":16})");
  return seeds;
}

void FuzzOne(std::string_view input) {
  const auto config = ModelConfigFromJson(input);
  if (!config.ok())
    return Require(config.status().code() == absl::StatusCode::kInvalidArgument, "refused with another status");
  Require(ValidateModelConfig(*config).ok(), "taken though it is not valid");
  const auto again = ModelConfigFromJson(ModelConfigToJson(*config));
  Require(again.ok() && *again == *config, "not the same when read again");
}

}  // namespace retro
