#include "generator_service/serve/served_model.h"

#include <filesystem>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {

namespace {

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizerOf(const std::string& directory,
                                                                 const CheckpointInfo& info) {
  if (info.tokenizer_file.empty()) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kModelInvalid,
                 StrCat(directory, ": the model has no tokenizer of its own; make it again with --tokenizer"));
  }
  const std::string path = ModelFilePath(directory, info.tokenizer_file);
  RETRO_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadTokenizer(path));
  if (tokenizer->vocabulary_size() > info.config.vocabulary) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kModelInvalid,
                 StrCat(path, ": has ", tokenizer->vocabulary_size(), " tokens, the model only ",
                        info.config.vocabulary, "; give the model its own tokenizer"));
  }
  if (!info.tokenizer_fingerprint.empty() && info.tokenizer_fingerprint != HexEncode(tokenizer->fingerprint())) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kModelInvalid,
                 StrCat(path, ": is not the tokenizer that the model was trained with; put that one back"));
  }
  return tokenizer;
}

}  // namespace

int64_t NeighbourCacheTokens(const ModelConfig& config) {
  const auto cca_layers = static_cast<int64_t>(config.cca_layers.size());
  return (cca_layers * config.neighbour_length + config.layers - 1) / config.layers;
}

absl::Status CheckCacheBlocks(const CheckpointInfo& info, int64_t cache_blocks) {
  const int64_t m = info.config.chunk_length;
  const int64_t neighbours = info.trained_neighbours * NeighbourCacheTokens(info.config);
  const int64_t longest = (info.config.max_length + neighbours + m - 1) / m;
  if (cache_blocks >= longest) return absl::OkStatus();
  return FieldError("--cache-mib",
                    StrCat("leaves room for ", cache_blocks, " blocks of ", m, " tokens, the model's context with ",
                           info.trained_neighbours, " neighbours takes ", longest));
}

absl::Status CheckServedModel(const std::string& directory, const std::string& device, const ModelOptions& options) {
  RETRO_RETURN_IF_ERROR(RetroModel::CheckDevice(device, options.numbers));
  RETRO_ASSIGN_OR_RETURN(const CheckpointInfo info, ReadCheckpointInfo(directory));
  RETRO_RETURN_IF_ERROR(CheckCacheBlocks(info, RetroModel::CacheBlocks(info.config, options)));
  return LoadTokenizerOf(directory, info).status();
}

absl::StatusOr<ServedModel> LoadServedModel(const std::string& directory, const std::string& device,
                                            const ModelOptions& options) {
  RETRO_RETURN_IF_ERROR(CheckServedModel(directory, device, options));
  ServedModel served;
  RETRO_ASSIGN_OR_RETURN(LoadedModel loaded, LoadModel(directory, device, options));
  served.info = std::move(loaded.info);
  served.model = std::move(loaded.model);
  RETRO_ASSIGN_OR_RETURN(served.tokenizer, LoadTokenizerOf(directory, served.info));
  served.name = std::filesystem::path(directory).lexically_normal().filename().string();
  if (served.name.empty()) served.name = std::filesystem::path(directory).parent_path().filename().string();
  return served;
}

}  // namespace retro
