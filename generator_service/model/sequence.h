// One running text: how far it is, and what the model remembers of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "generator_service/model/chunk_geometry.h"

namespace retro {

struct SequenceState;  // sequence_state.h

struct SequenceOptions {
  // Tokens of the first chunk, 0 ... m-1; 0: a full one, as in the paper. Prompt length mod m ends the prompt on a
  // border.
  int64_t offset = 0;
  // False: a plain language model; Forward takes no neighbours and keeps no conditioning.
  bool retrieval = true;
  // Scales what CCA adds; the model's own if not set.
  std::optional<double> gate;
  // True: the sequence may grow past the model's context, its self-attention then sees a ContextWindow.
  bool slide = false;
};

// Made by RetroModel::NewSequence; holds the caches on the model's device. A thread at a time may use it. Must not be
// given to another model than its own.
class Sequence {
 public:
  explicit Sequence(std::unique_ptr<SequenceState> state);
  ~Sequence();
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  // Tokens seen so far.
  int64_t position() const;
  const ChunkGeometry& geometry() const;
  const SequenceOptions& options() const;
  // How many tokens the next piece may have: to the model's context, or with `slide` to where the window moves on.
  int64_t room() const;
  // The chunks that the next `tokens` tokens complete, of which Forward wants the neighbours.
  int64_t ChunksCompletedBy(int64_t tokens) const;

  // Of the last Forward with Piece::want_mass: for each of its tokens, the CCA attention mass on each given neighbour
  // of the chunk that it attends to, mean over heads and CCA layers; the masses of a token add up to 1, or less if the
  // model has a null key. Empty for a token that attends to nothing.
  const std::vector<std::vector<float>>& attention_mass() const;

  SequenceState& state() { return *state_; }
  const SequenceState& state() const { return *state_; }

 private:
  std::unique_ptr<SequenceState> state_;
};

}  // namespace retro
