#include "generator_service/model/sequence.h"

#include <utility>

#include "generator_service/model/sequence_state.h"

namespace retro {

Sequence::Sequence(std::unique_ptr<SequenceState> state) : state_(std::move(state)) {}
Sequence::~Sequence() = default;

int64_t Sequence::position() const { return state_->position; }
const ChunkGeometry& Sequence::geometry() const { return state_->geometry; }
const SequenceOptions& Sequence::options() const { return state_->options; }

int64_t Sequence::room() const {
  const ContextWindow& window = state_->window;
  return state_->options.slide ? window.Room(state_->position) : window.Room(0) - state_->position;
}

int64_t Sequence::ChunksCompletedBy(int64_t tokens) const {
  return state_->geometry.CompleteChunks(state_->position + tokens) - state_->geometry.CompleteChunks(state_->position);
}

const std::vector<std::vector<float>>& Sequence::attention_mass() const { return state_->attention_mass; }

}  // namespace retro
