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

// What CCA keeps of a neighbour, its r rows' keys and values in each CCA layer, in tokens of the cache, which has the
// same of every layer: rounded up.
int64_t NeighbourCacheTokens(const ModelConfig& config);

// INVALID_ARGUMENT if so many blocks have no room for one generation of the model's whole context, with the neighbours
// that it was trained with.
absl::Status CheckCacheBlocks(const CheckpointInfo& info, int64_t cache_blocks);

// What LoadServedModel says before it reads the weights.
absl::Status CheckServedModel(const std::string& directory, const std::string& device, const ModelOptions& options);

// A model folder, ready on `device`. Errors name the file or setting and say what to do; a folder without a tokenizer,
// or with one that the model was not trained with, or too large for it, is INVALID_ARGUMENT. Others as
// RetroModel::CheckDevice and CheckCacheBlocks.
absl::StatusOr<ServedModel> LoadServedModel(const std::string& directory, const std::string& device,
                                            const ModelOptions& options);

}  // namespace retro
