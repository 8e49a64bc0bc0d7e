#include "trainer/retrofit.h"

#include <ATen/ATen.h>

#include <map>

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/checkpoints/random_init.h"
#include "generator_service/model/config.h"
#include "trainer/json_header.h"

namespace retro {
namespace {

// The decoder's part of a config: everything that only CCA and encoder have is the default.
ModelConfig DecoderOf(const ModelConfig& config) {
  const ModelConfig none;
  ModelConfig decoder = config;
  decoder.cca_layers.clear();
  decoder.encoder_width = decoder.encoder_ffw_width = decoder.encoder_heads = 0;
  decoder.encoder_head_size = decoder.encoder_layers = 0;
  decoder.encoder_cca_layers.clear();
  decoder.neighbour_length = none.neighbour_length;
  decoder.shared_embedding = decoder.encoder_final_norm = decoder.encoder_projection = false;
  decoder.conditioning_norm = decoder.mask_pad = false;
  return decoder;
}

absl::StatusOr<ModelConfig> ReadConfig(const RetrofitOptions& options, const ModelConfig& plain) {
  RETRO_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.config));
  absl::StatusOr<ModelConfig> config = ModelConfigFromJson(text);
  if (!config.ok()) return absl::InvalidArgumentError(StrCat(options.config, ": ", MessageOf(config.status())));
  if (config->cca_layers.empty()) {
    return absl::InvalidArgumentError(StrCat(options.config, ": 'cca_layers' is empty: there is nothing to fit"));
  }
  if (!plain.cca_layers.empty()) {
    return absl::InvalidArgumentError(StrCat(options.plain, " has CCA already: go on with 'retro-train run'"));
  }
  const HeaderJson own = HeaderJson::parse(ModelConfigToJson(DecoderOf(plain)));
  const HeaderJson wanted = HeaderJson::parse(ModelConfigToJson(DecoderOf(*config)));
  for (const auto& [key, value] : own.items()) {
    if (wanted[key] == value) continue;
    return absl::InvalidArgumentError(StrCat(options.config, ": '", key, "' is ", wanted[key].dump(), ", but ",
                                             value.dump(), " in ", options.plain, ", whose decoder is kept"));
  }
  return *config;
}

// The name of the decoder's weight that does in its layer what `name` does in encoder or CCA; empty if there is none.
std::string DecoderCounterpart(const ModelConfig& config, const std::string& name) {
  if (name == "encoder.final_norm") return StrCat("decoder.", config.cca_layers.front(), ".attention.norm");
  const size_t cca = name.find(".cca.");
  if (name.starts_with("encoder.")) return cca == std::string::npos ? "decoder" + name.substr(7) : "";
  return cca == std::string::npos ? "" : name.substr(0, cca) + ".attention." + name.substr(cca + 5);
}

// Encoder layers begin as the decoder's first layers, CCA as the attention beside it: what the decoder has learnt about
// finding text that continues its own works on neighbours from the start. Elsewhere `weights` stay as they are.
void CopyFromDecoder(const ModelConfig& config, std::map<std::string, at::Tensor>& weights) {
  for (auto& [name, tensor] : weights) {
    const auto found = weights.find(DecoderCounterpart(config, name));
    if (found != weights.end() && found->second.sizes() == tensor.sizes()) tensor = found->second.clone();
  }
}

}  // namespace

bool ServesRetrieval(std::string_view weight_name) {
  return weight_name.starts_with("encoder.") || weight_name.find(".cca.") != std::string_view::npos;
}

absl::Status WriteRetrofitStart(const RetrofitOptions& options) {
  RETRO_ASSIGN_OR_RETURN(CheckpointInfo info, ReadCheckpointInfo(options.plain));
  RETRO_ASSIGN_OR_RETURN(const auto plain, ReadCheckpointWeights(options.plain, info));
  RETRO_ASSIGN_OR_RETURN(info.config, ReadConfig(options, info.config));
  RETRO_ASSIGN_OR_RETURN(auto weights, RandomWeights(info.config, options.seed));
  for (const auto& [name, tensor] : plain) weights.at(name) = tensor;
  if (options.from_decoder) CopyFromDecoder(info.config, weights);
  const std::string tokenizer = info.tokenizer_file.empty() ? "" : options.plain + "/" + info.tokenizer_file;
  return SaveCheckpoint(options.out, info, weights, tokenizer).status();
}

}  // namespace retro
