// Which text a training window holds, as a function of (seed, window number) alone. Documents are cut into segments of
// at most a window, always between chunks; an epoch is a permutation of the segments, laid end to end, and its windows
// are cut from that. So every token is seen once an epoch, and a window may hold parts of several documents, each of
// which begins on a chunk border.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/data_set.h"

namespace retro {

// The place of one chunk in a window. A document has one slot more than its text fills if its eos needs it.
struct Slot {
  uint64_t document;
  uint64_t chunk;  // within the document
};

// One thread at a time. The data set must outlive it.
class WindowSampler {
 public:
  // `shuffle` false: the documents' order, for validation.
  WindowSampler(const DataSet& data, int64_t chunks_per_window, uint64_t seed, bool shuffle);

  uint64_t windows_per_epoch() const { return total_slots_ / chunks_per_window_; }
  // The slots of window `index`, epochs counted through. There must be one window at least.
  std::vector<Slot> Window(uint64_t index);

 private:
  struct Segment {
    uint64_t document;
    uint64_t chunk;
    uint64_t slots;
  };
  void BeginEpoch(uint64_t epoch);

  const uint64_t chunks_per_window_;
  const uint64_t seed_;
  const bool shuffle_;
  std::vector<Segment> segments_;     // in the documents' order
  std::vector<uint32_t> order_;       // of the epoch
  std::vector<uint64_t> first_slot_;  // of the epoch's segments
  uint64_t total_slots_ = 0;
  uint64_t epoch_ = 0;
};

// Random numbers that depend on their arguments alone (SplitMix64: Steele et al. 2014).
uint64_t MixedBits(uint64_t seed, uint64_t index);
double MixedUnit(uint64_t seed, uint64_t index);  // 0 <= x < 1

}  // namespace retro
