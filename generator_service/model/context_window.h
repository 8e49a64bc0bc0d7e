// Which tokens a token's self-attention sees in a sequence that may grow longer than the model's context: the newest
// ones, from a border of blocks on. Whenever the window is full its oldest block of m tokens leaves it, in all layers.
//
//   n = 6, m = 2:   token      0 1 2 3 4 5 6 7 8 9
//                   sees from  0 0 0 0 0 0 2 2 4 4
//
// The same as a full forward under a banded mask: distances, chunks and their neighbours are those of the whole
// sequence. With several layers what has left still shows through what the kept tokens took from it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace retro {

class ContextWindow {
 public:
  // `length`: n, the most tokens seen at once; `block`: m <= n.
  ContextWindow(int64_t length, int64_t block) : length_(length), block_(block) {}

  // The first token that the one at `position` sees.
  int64_t Begin(int64_t position) const {
    const int64_t past = std::max<int64_t>(position + 1 - length_, 0);
    return (past + block_ - 1) / block_ * block_;
  }
  // How many tokens from `position` on see the same first token.
  int64_t Room(int64_t position) const { return Begin(position) + length_ - position; }

 private:
  int64_t length_;
  int64_t block_;
};

}  // namespace retro
