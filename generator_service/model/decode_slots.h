// What sequences that decode keep on the device beside their pages, at places that never change, as a step of fixed
// shape wants it: the keys and values of the chunk that is attended to, and the running chunk's conditioning.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "generator_service/model/chunk_memory.h"
#include "generator_service/model/config.h"
#include "generator_service/model/neighbours.h"
#include "generator_service/model/sequence_state.h"
#include "generator_service/model/weights.h"

namespace retro {

// A slot is one sequence's until the caller gives it to another. One thread; c10::InferenceMode.
class DecodeSlots {
 public:
  // A model with CCA. Chunks with more neighbours than `neighbours_max` have no room. Throws c10::Error if the device
  // has no room.
  DecodeSlots(const ModelConfig& config, const ModelWeights& weights, int64_t slots, int64_t neighbours_max,
              const at::TensorOptions& activations);

  int64_t count() const { return absent_.size(0); }
  bool HasRoomFor(const SequenceState& state) const;
  bool HasRoomFor(const ChunkNeighbours& neighbours) const;
  // Bring to a slot what its sequence's next token reads, if something else is there.
  void BringConditioning(int64_t slot, const SequenceState& state);
  void BringMemory(int64_t slot, const ChunkMemoryPtr& memory);
  // The slot's sequence has ended: what was brought for it is let go of, the places stay.
  void Release(int64_t slot) { brought_[slot] = nullptr; }
  // The conditioning of the first `tokens` tokens of the running chunk, for the state: [tokens, d], no copy.
  at::Tensor ConditioningOf(int64_t slot, int64_t tokens) const;

  // By slot, of one CCA layer: [slots, heads, neighbours_max * r, head].
  const at::Tensor& keys(int64_t cca_index) const { return keys_[cca_index]; }
  const at::Tensor& values(int64_t cca_index) const { return values_[cca_index]; }
  const at::Tensor& absent() const { return absent_; }              // [slots, neighbours_max * r] bool, never all true
  const at::Tensor& conditioning() const { return conditioning_; }  // [slots, m, d]

 private:
  std::vector<at::Tensor> keys_;
  std::vector<at::Tensor> values_;
  const int64_t neighbour_length_;
  at::Tensor absent_;
  at::Tensor conditioning_;
  std::vector<ChunkMemoryPtr> brought_;  // whose copy the slot has
};

}  // namespace retro
