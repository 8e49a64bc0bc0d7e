// What init and import have in common: a folder to fill, and the tokenizer that goes with the model.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tokenizer/tokenizer.h"
#include "generator_service/checkpoints/checkpoint.h"

namespace retro {

struct OutputOptions {
  std::string directory;
  std::string tokenizer_path;
  std::string embedder_fingerprint;
  bool force = false;
  bool json = false;
};

// --out, --embedder-fingerprint, --force, --json.
void AddOutputOptions(CLI::App& app, OutputOptions& options);

// ALREADY_EXISTS if the folder holds a model and --force is not given. To be asked before anything costly.
absl::Status CheckOutputFolder(const OutputOptions& options);

// Null without --tokenizer.
absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadModelTokenizer(const OutputOptions& options);

// INVALID_ARGUMENT if the config cannot go with the tokenizer: another vocabulary size or, under mask_pad, another pad
// id. Some programs round their vocabulary up: ids without a piece are then allowed.
enum class SpareIds { kRefused, kAllowed };
absl::Status CheckTokenizerFits(const ModelConfig& config, const Tokenizer& tokenizer, SpareIds spare);

// Saves the model with the tokenizer's copy and fingerprint and the embedder's, and says so on standard output. `info`:
// all but those.
absl::Status WriteOutputFolder(const OutputOptions& options, CheckpointInfo info, const WeightGiver& weight,
                               const Tokenizer* tokenizer);

}  // namespace retro
