#include "trainer/window_sampler.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace retro {

uint64_t MixedBits(uint64_t seed, uint64_t index) {
  uint64_t bits = seed * 0x9e3779b97f4a7c15 + (index + 1) * 0xd1342543de82ef95;
  for (int round = 0; round < 2; ++round) {
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111eb;
    bits ^= bits >> 31;
  }
  return bits;
}

double MixedUnit(uint64_t seed, uint64_t index) {
  return static_cast<double>(MixedBits(seed, index) >> 11) * 0x1.0p-53;
}

WindowSampler::WindowSampler(const DataSet& data, int64_t chunks_per_window, uint64_t seed, bool shuffle)
    : chunks_per_window_(static_cast<uint64_t>(chunks_per_window)), seed_(seed), shuffle_(shuffle) {
  for (uint64_t document = 0; document < data.header().documents; ++document) {
    const uint64_t end = data.end_chunk(document);
    const uint64_t chunks = end - data.first_chunk(document);
    const bool eos_fits = chunks > 0 && data.chunks()[end - 1].tokens < data.header().chunk_length;
    const uint64_t slots = chunks + (eos_fits ? 0 : 1);
    for (uint64_t chunk = 0; chunk < slots; chunk += chunks_per_window_) {
      segments_.push_back({document, chunk, std::min(chunks_per_window_, slots - chunk)});
    }
    total_slots_ += slots;
  }
  order_.resize(segments_.size());
  first_slot_.resize(segments_.size());
  BeginEpoch(0);
}

void WindowSampler::BeginEpoch(uint64_t epoch) {
  epoch_ = epoch;
  std::iota(order_.begin(), order_.end(), 0);
  for (size_t i = order_.size(); shuffle_ && i > 1; --i) {
    std::swap(order_[i - 1], order_[MixedBits(seed_ ^ (epoch << 32), i) % i]);
  }
  uint64_t slot = 0;
  for (size_t i = 0; i < order_.size(); ++i) {
    first_slot_[i] = slot;
    slot += segments_[order_[i]].slots;
  }
}

std::vector<Slot> WindowSampler::Window(uint64_t index) {
  const uint64_t epoch = index / windows_per_epoch();
  if (epoch != epoch_) BeginEpoch(epoch);
  const uint64_t first = index % windows_per_epoch() * chunks_per_window_;
  std::vector<Slot> window;
  size_t place = std::ranges::upper_bound(first_slot_, first) - first_slot_.begin() - 1;
  for (uint64_t slot = first; slot < first + chunks_per_window_; ++slot) {
    if (slot >= first_slot_[place] + segments_[order_[place]].slots) ++place;
    const Segment& segment = segments_[order_[place]];
    window.push_back({segment.document, segment.chunk + slot - first_slot_[place]});
  }
  return window;
}

}  // namespace retro
