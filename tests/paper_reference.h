// The goldens under tests/goldens/paper: a config, weights and the fp64 reference implementation's outputs for them.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/tokenizer/tokenizer.h"
#include "generator_service/checkpoints/foreign_format.h"
#include "generator_service/model/model.h"
#include "generator_service/model/neighbours.h"

namespace retro {

struct PaperReference {
  std::string name;
  int64_t offset = 0;
  ModelConfig config;
  std::map<std::string, at::Tensor> weights;  // fp32, by the weight table's names
  std::unique_ptr<RetroModel> model;
  std::vector<TokenId> tokens;              // [n]
  std::vector<ChunkNeighbours> neighbours;  // of the complete chunks
  at::Tensor logits;                        // [n, V] fp64, as are the following
  at::Tensor logits_off;                    // [n, V] without retrieval
  at::Tensor conditioning;                  // [n, d]
  at::Tensor encoded;                       // [chunks, k, r, d']
  at::Tensor last;                          // [n, d]
};

std::vector<std::string> PaperReferenceNames();

// A golden in the foreign format: NAME.json and NAME.weights.safetensors at `stem`.
absl::StatusOr<ForeignModel> OpenGolden(const std::string& format, const std::string& stem);

// Fails the test (and the program) if the golden cannot be read. `context`: the model's longest sequence, if not 0.
PaperReference LoadPaperReference(const std::string& name, int64_t context = 0);

// The logits of a golden whose self-attention slides over so many tokens (see ContextWindow): [n, V] fp64, of the
// reference with a banded mask in place of the causal one.
at::Tensor LoadSlidingReference(const std::string& name, int64_t context);

}  // namespace retro
