#include "generator_service/model/decode_slots.h"

namespace retro {

DecodeSlots::DecodeSlots(const ModelConfig& config, const ModelWeights& weights, int64_t slots, int64_t neighbours_max,
                         const at::TensorOptions& activations)
    : neighbour_length_(config.neighbour_length),
      absent_(at::zeros({slots, neighbours_max * config.neighbour_length}, activations.dtype(at::kBool))),
      conditioning_(at::zeros({slots, config.chunk_length, config.width}, activations.dtype(at::kFloat))),
      brought_(slots) {
  for (const int64_t layer : config.cca_layers) {
    const at::TensorOptions own = weights.layers[layer - 1].cca->positions.options();
    const std::vector<int64_t> shape = {slots, config.heads, absent_.size(1), config.head_size};
    keys_.push_back(at::zeros(shape, own));
    values_.push_back(at::zeros(shape, own));
  }
}

bool DecodeSlots::HasRoomFor(const SequenceState& state) const {
  return state.memory == nullptr || state.memory->keys[0].size(1) <= absent_.size(1);
}

bool DecodeSlots::HasRoomFor(const ChunkNeighbours& neighbours) const {
  return neighbours.count * neighbour_length_ <= absent_.size(1);
}

void DecodeSlots::BringConditioning(int64_t slot, const SequenceState& state) {
  const at::Tensor own = conditioning_[slot];
  if (state.conditioning.defined() && state.conditioning.const_data_ptr() != own.const_data_ptr()) {
    own.narrow(0, 0, state.conditioning.size(0)).copy_(state.conditioning);
  }
}

void DecodeSlots::BringMemory(int64_t slot, const ChunkMemoryPtr& brought) {
  // What was there before serves a sequence without neighbours: it is a number, and counts for nothing.
  if (brought == nullptr || brought == brought_[slot]) return;
  const ChunkMemory& memory = *brought;
  const int64_t held = memory.keys[0].size(1);
  for (size_t cca = 0; cca < keys_.size(); ++cca) {
    keys_[cca][slot].narrow(1, 0, held).copy_(memory.keys[cca]);
    values_[cca][slot].narrow(1, 0, held).copy_(memory.values[cca]);
  }
  at::Tensor absent = absent_[slot];
  absent.fill_(true);
  at::Tensor there = absent.narrow(0, 0, held);
  memory.absent.defined() ? there.copy_(memory.absent) : there.fill_(false);
  brought_[slot] = brought;
}

at::Tensor DecodeSlots::ConditioningOf(int64_t slot, int64_t tokens) const {
  return conditioning_[slot].narrow(0, 0, tokens);
}

}  // namespace retro
