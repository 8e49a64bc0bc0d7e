// The goldens under tests/goldens/paper: a config, weights and the fp64 reference implementation's outputs for them.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "common/tokenizer/tokenizer.h"
#include "generator_service/model/model.h"
#include "generator_service/model/neighbours.h"

namespace retro {

struct PaperReference {
  std::string name;
  int64_t offset = 0;
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

// Fails the test (and the program) if the golden cannot be read.
PaperReference LoadPaperReference(const std::string& name);

}  // namespace retro
