#include "retriever_service/embed/attention_kernel.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/simd.h"

namespace retro {
namespace {

using simd::Floats;
using simd::kLanes;

// A tile of the products: 4 x 16 sums are eight of AVX2's sixteen registers.
constexpr int kRows = 4;
constexpr int kColumns = 2 * kLanes;

int RoundUp(int value, int step) { return (value + step - 1) / step * step; }

// c[4, columns] = a[4, depth] * b[depth, columns]; columns is a multiple of kColumns.
void MultiplyFourRows(int depth, int columns, const float* a, int a_stride, const float* b, int b_stride, float* c,
                      int c_stride) {
  for (int j = 0; j < columns; j += kColumns) {
    Floats sums[kRows][2] = {};
    for (int k = 0; k < depth; ++k) {
      const Floats left = simd::Load(b + static_cast<size_t>(k) * b_stride + j);
      const Floats right = simd::Load(b + static_cast<size_t>(k) * b_stride + j + kLanes);
      for (int r = 0; r < kRows; ++r) {
        const float factor = a[static_cast<size_t>(r) * a_stride + k];
        sums[r][0] += factor * left;
        sums[r][1] += factor * right;
      }
    }
    for (int r = 0; r < kRows; ++r) {
      simd::Store(c + static_cast<size_t>(r) * c_stride + j, sums[r][0]);
      simd::Store(c + static_cast<size_t>(r) * c_stride + j + kLanes, sums[r][1]);
    }
  }
}

// row = e^(row - largest) over `count` values, of which the room is a multiple of kLanes; returns 1 / their sum.
float ExponentialsOfRow(float* row, int count) {
  const int room = RoundUp(count, kLanes);
  std::fill(row + count, row + room, -std::numeric_limits<float>::infinity());
  Floats largest = simd::Load(row);
  for (int i = kLanes; i < room; i += kLanes) largest = simd::Max(largest, simd::Load(row + i));
  const float shift = simd::Largest(largest);
  Floats sums = {};
  for (int i = 0; i < room; i += kLanes) {
    const Floats value = simd::Exp(simd::Load(row + i) - shift);
    simd::Store(row + i, value);
    sums += value;
  }
  return 1.0f / simd::Sum(sums);  // the filling adds e^-87 each: nothing
}

}  // namespace

AttentionKernel::AttentionKernel(int head_size)
    : head_size_(head_size),
      padded_head_size_(RoundUp(head_size, kColumns)),
      result_(static_cast<size_t>(kRows) * padded_head_size_) {}

void AttentionKernel::PackHead(int tokens, int width, const float* qkv, const float* bias) {
  const int key_stride = RoundUp(tokens, kColumns);
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_size_));
  for (int t = 0; t < tokens; ++t) {
    const float* row = qkv + static_cast<size_t>(t) * 3 * width;
    float* query = queries_.data() + static_cast<size_t>(t) * head_size_;
    float* value = values_.data() + static_cast<size_t>(t) * padded_head_size_;
    for (int i = 0; i < head_size_; ++i) query[i] = (row[i] + bias[i]) * scale;
    for (int i = 0; i < head_size_; ++i)
      keys_[static_cast<size_t>(i) * key_stride + t] = row[width + i] + bias[width + i];
    for (int i = 0; i < head_size_; ++i) value[i] = row[2 * width + i] + bias[2 * width + i];
  }
}

void AttentionKernel::Run(int tokens, int width, const float* qkv, std::span<const float> bias, float* out) {
  const int key_stride = RoundUp(tokens, kColumns);
  // Zeroed: what the tiles read beyond the text must be numbers, though no result depends on them.
  queries_.assign(static_cast<size_t>(RoundUp(tokens, kRows)) * head_size_, 0.0f);
  keys_.assign(static_cast<size_t>(head_size_) * key_stride, 0.0f);
  values_.assign(static_cast<size_t>(tokens) * padded_head_size_, 0.0f);
  scores_.resize(static_cast<size_t>(kRows) * key_stride);
  for (int head = 0; head < width; head += head_size_) {
    PackHead(tokens, width, qkv + head, bias.data() + head);
    for (int t = 0; t < tokens; t += kRows) {
      MultiplyFourRows(head_size_, key_stride, queries_.data() + static_cast<size_t>(t) * head_size_, head_size_,
                       keys_.data(), key_stride, scores_.data(), key_stride);
      float scale[kRows];
      for (int r = 0; r < kRows; ++r) {
        scale[r] = ExponentialsOfRow(scores_.data() + static_cast<size_t>(r) * key_stride, tokens);
      }
      MultiplyFourRows(tokens, padded_head_size_, scores_.data(), key_stride, values_.data(), padded_head_size_,
                       result_.data(), padded_head_size_);
      for (int r = 0; r < std::min(kRows, tokens - t); ++r) {
        float* to = out + static_cast<size_t>(t + r) * width + head;
        const float* from = result_.data() + static_cast<size_t>(r) * padded_head_size_;
        for (int i = 0; i < head_size_; ++i) to[i] = from[i] * scale[r];
      }
    }
  }
}

}  // namespace retro
