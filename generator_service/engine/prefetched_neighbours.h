// A sequence's slots for neighbours: what look-ups have brought waits here until the token that first attends to it is
// fed to the model, which may be many steps later while a prompt's prefill goes on.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>

#include "generator_service/model/neighbours.h"

namespace retro {

class PrefetchedNeighbours {
 public:
  // Neighbours of the chunks below this one have arrived; they do so in the order of the chunks.
  int64_t known() const { return forgotten_ + static_cast<int64_t>(slots_.size()); }

  // Chunks whose neighbours are held.
  int64_t held() const { return static_cast<int64_t>(slots_.size()); }

  // Of chunk known().
  void Add(ChunkNeighbours neighbours) { slots_.push_back(std::move(neighbours)); }

  // Of a chunk that is known and not forgotten.
  const ChunkNeighbours& Of(int64_t chunk) const { return slots_[static_cast<size_t>(chunk - forgotten_)]; }

  // Tokens that attend to the chunks before this one have all been fed.
  void ForgetBefore(int64_t chunk) {
    for (; forgotten_ < chunk; ++forgotten_) slots_.pop_front();
  }

 private:
  std::deque<ChunkNeighbours> slots_;
  int64_t forgotten_ = 0;
};

}  // namespace retro
