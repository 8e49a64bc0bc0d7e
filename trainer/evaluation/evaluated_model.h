// The model that an evaluation is of, whole or with a part left out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tokenizer/tokenizer.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/model/model.h"
#include "trainer/model_text.h"

namespace retro {

struct EvaluationOptions {
  std::string model;  // folder, with a tokenizer of its own
  std::string data;   // prepared folder, with neighbours if the model has CCA
  std::string device = "cpu";
  std::string numbers = "fp32";
  bool conditioning = true;  // false: the encoder does not see the chunk that neighbours were found for
};

// Members are not to be moved apart: a thread at a time, all of it on the one that made it.
struct EvaluatedModel {
  CheckpointInfo info;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<RetroModel> model;
  ModelText text;
  std::vector<uint32_t> token_bytes;  // by id: bytes of text that the token stands for
};

// INVALID_ARGUMENT for a tokenizer that is not lossless (bits per byte need every token's bytes) or unknown numbers.
absl::StatusOr<EvaluatedModel> OpenEvaluatedModel(const EvaluationOptions& options);

}  // namespace retro
