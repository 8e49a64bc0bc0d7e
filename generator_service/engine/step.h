// The only seam between scheduling and the model: slices of sequences in, logits out. Everything above it is plain
// logic that runs without a model; everything below it knows no requests.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "generator_service/engine/generation.h"

namespace retro {

// How the token at place `index` of a sequence is to be sampled.
struct SamplingOrder {
  const SamplingSettings* settings = nullptr;
  const SeenTokens* seen = nullptr;
  uint64_t index = 0;
};

// The next tokens of one sequence.
struct StepItem {
  uint64_t sequence = 0;
  // Set with a sequence's first slice: how to begin it.
  bool begins = false;
  bool retrieval = false;
  int64_t offset = 0;
  std::optional<float> gate;
  bool slide = false;

  std::span<const TokenId> tokens;          // at least one
  std::vector<ChunkNeighbours> neighbours;  // of the chunks that the tokens complete, in order; none without retrieval
  int64_t logit_rows = 0;                   // logits are wanted for so many of the last tokens
  bool want_attention = false;              // of the last token
  // Set where the logits serve nothing but to sample the next token: the runner may do that in its own place.
  std::optional<SamplingOrder> sampling;
};

struct StepOutput {
  std::span<const float> logits;       // [logit_rows, V], row-major; the runner's, valid until its next Step or End
  std::vector<float> attention;        // share on each neighbour of the chunk attended to; empty if there is none
  std::optional<ScoredToken> sampled;  // in place of the logits, where the item has `sampling`
};

// Owns the caches of all sequences. One thread.
class StepRunner {
 public:
  virtual ~StepRunner() = default;

  // One output an item, in order, each item of another sequence. A sequence whose item failed has not moved; the others
  // have.
  virtual std::vector<absl::StatusOr<StepOutput>> Step(std::span<const StepItem> items) = 0;

  // Frees the sequence's caches. Unknown ones are ignored.
  virtual void End(uint64_t sequence) = 0;
};

}  // namespace retro
