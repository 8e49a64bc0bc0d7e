#include "generator_service/model_tool/output_folder.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <system_error>

#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/model/weight_table.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

// The name under which LoadTokenizer knows the file's kind again.
std::string TokenizerFileName(const std::string& path) {
  return std::filesystem::path(path).extension() == ".model" ? "tokenizer.model" : "vocab.txt";
}

}  // namespace

void AddOutputOptions(CLI::App& app, OutputOptions& options) {
  app.add_option("--out", options.directory, "The model folder to write")->required();
  app.add_option("--embedder-fingerprint", options.embedder_fingerprint,
                 "Fingerprint (hex) of the embedder that the model's neighbours were or will be found with");
  app.add_flag("--force", options.force, "Replace the model that the folder holds");
  app.add_flag("--json", options.json, "Report as one JSON object");
}

absl::Status CheckOutputFolder(const OutputOptions& options) {
  std::error_code error;
  if (options.force || !std::filesystem::exists(ModelFilePath(options.directory, kConfigFileName), error)) {
    return absl::OkStatus();
  }
  return absl::AlreadyExistsError(
      StrCat(options.directory, " holds a model already: choose another --out, or replace it with --force"));
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadModelTokenizer(const OutputOptions& options) {
  if (options.tokenizer_path.empty()) return nullptr;
  return LoadTokenizer(options.tokenizer_path);
}

absl::Status CheckTokenizerFits(const ModelConfig& config, const Tokenizer& tokenizer, SpareIds spare) {
  const int64_t spare_ids = config.vocabulary - tokenizer.vocabulary_size();
  if (spare_ids < 0 || (spare_ids > 0 && spare == SpareIds::kRefused)) {
    return absl::InvalidArgumentError(StrCat("the config's vocabulary is ", config.vocabulary, ", the tokenizer has ",
                                             tokenizer.vocabulary_size(), " pieces: give the model's own tokenizer"));
  }
  if (config.mask_pad && config.pad_id != tokenizer.pad_id()) {
    return absl::InvalidArgumentError(StrCat("the config masks pad id ", config.pad_id, ", the tokenizer's is ",
                                             tokenizer.pad_id(), ": set pad_id in the config"));
  }
  return absl::OkStatus();
}

absl::Status WriteOutputFolder(const OutputOptions& options, CheckpointInfo info, const WeightGiver& weight,
                               const Tokenizer* tokenizer) {
  info.embedder_fingerprint = options.embedder_fingerprint;
  if (tokenizer != nullptr) {
    info.tokenizer_file = TokenizerFileName(options.tokenizer_path);
    info.tokenizer_fingerprint = HexEncode(tokenizer->fingerprint());
  }
  RETRO_ASSIGN_OR_RETURN(const std::string revision,
                         SaveCheckpoint(options.directory, info, weight, options.tokenizer_path));
  const int64_t parameters = CountParameters(WeightTable(info.config));
  if (options.json) {
    std::cout
        << nlohmann::ordered_json{{"out", options.directory}, {"parameters", parameters}, {"revision", revision}}.dump()
        << "\n";
  } else {
    std::cout << fmt::format("{}: {:.2f} M parameters, revision {}\n", options.directory,
                             static_cast<double>(parameters) / 1e6, revision);
  }
  return absl::OkStatus();
}

}  // namespace retro
