// Self-attention of one text (Vaswani et al. 2017, section 3.2), softmax(Q K^T / sqrt(d)) V, for some of its heads, in
// fp32 on the caller's thread. The matrices of one head of one text are too small for a library's matrix product: the
// calls would cost more than the work.
#pragma once

#include <span>
#include <vector>

namespace retro {

// Scratch of one thread; grows to what the longest text needs.
class AttentionKernel {
 public:
  explicit AttentionKernel(int head_size);

  // `qkv`: `tokens` rows of 3 * width values, width = a number of heads * head_size: queries, keys and values without
  // their bias, which `bias` holds in the same order. `out`: `tokens` rows of `width` values.
  void Run(int tokens, int width, const float* qkv, std::span<const float> bias, float* out);

 private:
  void PackHead(int tokens, int width, const float* qkv, const float* bias);

  const int head_size_;
  const int padded_head_size_;
  std::vector<float> queries_;  // [tokens rounded up to kRows, head_size], scaled
  std::vector<float> keys_;     // [head_size, tokens rounded up to kColumns], transposed
  std::vector<float> values_;   // [tokens, padded_head_size]
  std::vector<float> scores_;   // [kRows, tokens rounded up]
  std::vector<float> result_;   // [kRows, padded_head_size]
};

}  // namespace retro
