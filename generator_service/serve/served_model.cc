#include "generator_service/serve/served_model.h"

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {

absl::StatusOr<ServedModel> LoadServedModel(const std::string& directory, const std::string& device,
                                            const ModelOptions& options) {
  ServedModel served;
  RETRO_ASSIGN_OR_RETURN(LoadedModel loaded, LoadModel(directory, device, options));
  served.info = std::move(loaded.info);
  served.model = std::move(loaded.model);
  if (served.info.tokenizer_file.empty()) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kModelInvalid,
                 StrCat(directory, ": the model has no tokenizer of its own; make it again with --tokenizer"));
  }
  const std::string tokenizer = ModelFilePath(directory, served.info.tokenizer_file);
  RETRO_ASSIGN_OR_RETURN(served.tokenizer, LoadTokenizer(tokenizer));
  if (served.tokenizer->vocabulary_size() > served.config().vocabulary) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kModelInvalid,
                 StrCat(tokenizer, ": has ", served.tokenizer->vocabulary_size(), " tokens, the model only ",
                        served.config().vocabulary, "; give the model its own tokenizer"));
  }
  const std::string fingerprint = HexEncode(served.tokenizer->fingerprint());
  if (!served.info.tokenizer_fingerprint.empty() && served.info.tokenizer_fingerprint != fingerprint) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kModelInvalid,
                 StrCat(tokenizer, ": is not the tokenizer that the model was trained with; put that one back"));
  }
  served.name = std::filesystem::path(directory).lexically_normal().filename().string();
  if (served.name.empty()) served.name = std::filesystem::path(directory).parent_path().filename().string();
  return served;
}

}  // namespace retro
