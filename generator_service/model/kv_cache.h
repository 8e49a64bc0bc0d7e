// The keys and values of one self-attention for one sequence, in memory that grows by whole chunks.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace retro {

class KvCache {
 public:
  // Writes the rows [heads, T, head] to the places first ... first + T - 1; rows before them stay. Growing takes room
  // for `reserve` rows at least, rounded up to a multiple of `block`.
  void Write(int64_t first, const at::Tensor& keys, const at::Tensor& values, int64_t block, int64_t reserve);

  // Forgets the first `rows` rows; the `kept` after them become the first ones.
  void DropFront(int64_t rows, int64_t kept);

  // [heads, capacity, head]
  const at::Tensor& keys() const { return keys_; }
  const at::Tensor& values() const { return values_; }

 private:
  at::Tensor keys_;
  at::Tensor values_;
};

}  // namespace retro
