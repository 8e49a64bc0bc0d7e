#include "trainer/retrofit.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/checkpoints/random_init.h"
#include "generator_service/model/config.h"
#include "trainer/copying_start.h"
#include "trainer/json_header.h"
#include "trainer/model_text.h"

namespace retro {
namespace {

constexpr char kOriginFileName[] = "start.json";

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

// All that the start depends on.
std::string Origin(const RetrofitOptions& options, const CheckpointInfo& plain, const ModelConfig& config,
                   const ModelText& text) {
  const bool copying = options.new_weights == NewWeights::kCopying;
  return StrCat(HeaderJson({{"model", plain.revision},
                            {"config", HeaderJson::parse(ModelConfigToJson(config))},
                            {"data", copying ? text.data->header().fingerprint : ""},
                            {"new_weights", copying ? "copying" : "random"},
                            {"length", copying ? options.length : 0},
                            {"seed", options.seed}})
                    .dump(2),
                "\n");
}

bool IsWritten(const std::string& folder, const std::string& origin) {
  const absl::StatusOr<std::string> written = ReadFile(folder + "/" + kOriginFileName);
  return written.ok() && *written == origin && ReadCheckpointInfo(folder).ok();
}

}  // namespace

bool ServesRetrieval(std::string_view weight_name) {
  return weight_name.starts_with("encoder.") || weight_name.find(".cca.") != std::string_view::npos;
}

absl::Status WriteRetrofitStart(const RetrofitOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const CheckpointInfo plain, ReadCheckpointInfo(options.plain));
  CheckpointInfo info = plain;
  RETRO_ASSIGN_OR_RETURN(info.config, ReadConfig(options, plain.config));
  const bool copying = options.new_weights == NewWeights::kCopying;
  ModelText text;
  if (copying) {
    RETRO_RETURN_IF_ERROR(CheckCanCopy(info.config));
    RETRO_RETURN_IF_ERROR(OpenModelText(options.data, plain, text));
  }
  const std::string origin = Origin(options, plain, info.config, text);
  if (IsWritten(options.out, origin)) return absl::OkStatus();
  RETRO_ASSIGN_OR_RETURN(const auto decoder, ReadCheckpointWeights(options.plain, plain));
  RETRO_ASSIGN_OR_RETURN(auto weights, RandomWeights(info.config, options.seed));
  for (const auto& [name, tensor] : decoder) weights.at(name) = tensor;
  if (copying) {
    RETRO_RETURN_IF_ERROR(
        PlantCopying(info.config, *text.data, {.length = options.length, .seed = options.seed}, weights));
  }
  // Neither a cut between the two files nor a start of other options beside the record is taken for this one.
  std::error_code ignored;
  std::filesystem::remove(options.out + "/" + kOriginFileName, ignored);
  const std::string tokenizer = info.tokenizer_file.empty() ? "" : ModelFilePath(options.plain, info.tokenizer_file);
  RETRO_RETURN_IF_ERROR(SaveCheckpoint(options.out, info, weights, tokenizer).status());
  return WriteFileAtomically(options.out + "/" + kOriginFileName, origin);
}

}  // namespace retro
