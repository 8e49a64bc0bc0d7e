// A reference's inputs and outputs, made elsewhere from the same weights, and a model's answers to the same inputs.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/safetensors/safetensors.h"
#include "generator_service/model/model.h"

namespace retro {

struct ReferenceText {
  std::vector<TokenId> tokens;              // [n]
  std::vector<ChunkNeighbours> neighbours;  // by chunk
};

struct Reference {
  std::vector<ReferenceText> texts;
  bool batched = false;  // the file's tensors have a batch dimension
};

// tokens [n] or [B, n]; neighbours, or retrieved, [chunks, k, r] or [B, chunks, k, r]. INVALID_ARGUMENT naming the
// file.
absl::StatusOr<Reference> ReadInputs(const SafetensorsFile& file);

struct RunOptions {
  std::optional<int64_t> offset;  // not set: as the model was trained
  int64_t piece = 0;              // tokens a step; 0: all at once
};

// What the outputs of a reference are called, and what they are. The model runs for an output only if it is wanted.
// Outputs by name, fp32, [B, ...] if the reference is batched.
std::vector<std::string> KnownOutputs();
absl::StatusOr<std::map<std::string, at::Tensor>> RunReference(const RetroModel& model, const Reference& reference,
                                                               const std::vector<std::string>& wanted,
                                                               const RunOptions& options);

}  // namespace retro
