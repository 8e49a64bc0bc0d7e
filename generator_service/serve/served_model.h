// The model as the RPCs see it: its sizes, its tokenizer and what it was trained with.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/tokenizer/tokenizer.h"
#include "generator_service/checkpoints/checkpoint.h"

namespace retro {

// Immutable once the server runs.
struct ServedModel {
  CheckpointInfo info;
  std::unique_ptr<RetroModel> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::string name;

  const ModelConfig& config() const { return info.config; }
  bool can_retrieve() const { return !info.config.cca_layers.empty(); }
};

// What can be said of a model folder without reading its weights. Errors as LoadServedModel.
absl::Status CheckModelFolder(const std::string& directory);

// A model folder, ready on `device`. Errors name the file and say what to do; a folder without a tokenizer, or with one
// that the model was not trained with, or too large for it, is INVALID_ARGUMENT.
absl::StatusOr<ServedModel> LoadServedModel(const std::string& directory, const std::string& device,
                                            const ModelOptions& options);

}  // namespace retro
