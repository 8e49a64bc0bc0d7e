// Bits that a model needs for the chunks of a document, and how much of each chunk its neighbours hold already.
// Source: Borgeaud et al. 2021, sections 2.6 and 4.1 (leakage filter), and its ablations.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/evaluation/evaluated_model.h"

namespace retro {

enum class NeighbourForm {
  kWhole,         // N and its continuation F
  kAlone,         // N, with F pad
  kContinuation,  // F, with N pad
  kRandom,        // chunks drawn from the whole database, the document's own left out
};

std::string_view NeighbourFormName(NeighbourForm form);  // "whole", "alone", "continuation", "random"
absl::StatusOr<NeighbourForm> NeighbourFormFromName(std::string_view name);

struct ScoringOptions {
  int64_t k = 2;  // neighbours a chunk; 0: no retrieval
  NeighbourForm form = NeighbourForm::kWhole;
  uint64_t seed = 1;        // of random neighbours
  uint64_t tokens_max = 0;  // of a document; 0: all
};

struct ChunkScore {
  double bits = 0;
  uint64_t bytes = 0;  // of the tokens that the bits are of: all but a document's first
};

// By chunk of the document, up to the last that has a predicted token. INVALID_ARGUMENT: k is more than the neighbour
// table has, or the model reads no neighbours of that form.
absl::StatusOr<std::vector<ChunkScore>> ScoreDocument(const EvaluatedModel& evaluated, uint64_t document,
                                                      const ScoringOptions& options);

// The neighbours of a chunk as ScoreDocument gives them to the model.
ChunkNeighbours NeighboursOf(const EvaluatedModel& evaluated, uint64_t chunk, const ScoringOptions& options);

// The longest run of tokens that a chunk has in common with one of the `k` nearest neighbours of its own, as r(C) of
// the paper, or of those of the chunk before it, which are what its tokens are predicted from; each with its
// continuation, as a share of m.
double SharedShare(const EvaluatedModel& evaluated, uint64_t chunk, int64_t k);

// Length of the longest run of tokens that both hold; pad is in no run.
int64_t LongestCommonRun(std::span<const TokenId> a, std::span<const TokenId> b, TokenId pad);

}  // namespace retro
