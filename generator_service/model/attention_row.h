// Transformer-XL's attention of one query and head over rows that lie in blocks: the inner loops that self-attention
// over pages and CCA over a chunk's neighbours share. Only for .cc files with kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "common/base/simd.h"

namespace retro::attention_row {

using simd::Floats;
using simd::kLanes;

// Columns of the values that are summed at once: their sums stay in registers.
inline constexpr int64_t kValueVectors = 8;

inline int64_t RoundUp(int64_t value) { return (value + kLanes - 1) / kLanes * kLanes; }

struct Fp32 {
  using Element = float;
  static Floats Load(const Element* from) { return simd::Load(from); }
  static float Number(Element value) { return value; }
};
struct Fp16 {
  using Element = uint16_t;
  static Floats Load(const Element* from) { return simd::LoadHalves(from); }
  static float Number(Element value) { return simd::FromHalf(value); }
};

// What one head of one query attends to.
template <typename Format>
struct HeadView {
  using Element = typename Format::Element;
  const Element* keys = nullptr;    // of the head: block b at keys + b * block_stride, [rows of a block, head]
  const Element* values = nullptr;  // likewise
  const Element* table = nullptr;   // of the head, from the distance of the first key down: [rows, head]
  int64_t table_step = 0;           // rows of the table from block to block; 0: each begins with the same distance
  std::span<const int64_t> blocks;  // by place; empty: 0, 1, ...
  int64_t block_stride = 0;
  int64_t block_rows = 0;
  int64_t count = 0;             // S: rows in all
  const bool* absent = nullptr;  // [S], true: no such key; may be null
  int64_t head_size = 0;

  int64_t BlockOffset(int64_t first) const {
    const int64_t place = first / block_rows;
    return (blocks.empty() ? place : blocks[place]) * block_stride;
  }
  bool IsLast(int64_t first) const { return first + block_rows >= count; }
};

// Scratch of one worker.
struct Scratch {
  std::vector<float> content_query;   // (q + u) * scale
  std::vector<float> position_query;  // (q + v) * scale
  std::vector<float> shares;          // [S rounded up]: logits, then softmax but for a factor
};

// content . keys[r] + position . table[r] for kLanes consecutive rows.
template <typename Format>
Floats EightLogits(const Scratch& scratch, int64_t head_size, const typename Format::Element* keys,
                   const typename Format::Element* table) {
  Floats sums[kLanes] = {};
  const int64_t whole = head_size / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats content = simd::Load(scratch.content_query.data() + i);
    const Floats position = simd::Load(scratch.position_query.data() + i);
    for (int r = 0; r < kLanes; ++r) {
      sums[r] = simd::MultiplyAdd(content, Format::Load(keys + r * head_size + i), sums[r]);
      sums[r] = simd::MultiplyAdd(position, Format::Load(table + r * head_size + i), sums[r]);
    }
  }
  Floats logits = simd::SumEach(sums);
  for (int64_t i = whole; i < head_size; ++i) {
    for (int r = 0; r < kLanes; ++r) {
      logits[r] += scratch.content_query[i] * Format::Number(keys[r * head_size + i]) +
                   scratch.position_query[i] * Format::Number(table[r * head_size + i]);
    }
  }
  return logits;
}

template <typename Format>
float OneLogit(const Scratch& scratch, int64_t head_size, const typename Format::Element* key,
               const typename Format::Element* table) {
  float logit = 0;
  for (int64_t i = 0; i < head_size; ++i) {
    logit += scratch.content_query[i] * Format::Number(key[i]) + scratch.position_query[i] * Format::Number(table[i]);
  }
  return logit;
}

// Asks the second cache for memory that is read one block later. The processor itself follows a stream only from its
// third line on, and blocks are short.
inline void FetchAhead(const void* from, int64_t bytes) {
  constexpr int64_t kLine = 64;
  constexpr int kSecondCache = 2;
  for (int64_t at = 0; at < bytes; at += kLine) {
    __builtin_prefetch(static_cast<const char*>(from) + at, /*rw=*/0, kSecondCache);
  }
}

template <typename Format>
void Logits(const HeadView<Format>& head, Scratch& scratch) {
  const int64_t step_bytes = kLanes * head.head_size * static_cast<int64_t>(sizeof(typename Format::Element));
  float* logits = scratch.shares.data();
  for (int64_t first = 0; first < head.count; first += head.block_rows) {
    const auto* keys = head.keys + head.BlockOffset(first);
    const auto* table = head.table + first / head.block_rows * head.table_step * head.head_size;
    const auto* next_table = table + head.table_step * head.head_size;
    const auto* next =
        head.IsLast(first) ? head.values + head.BlockOffset(0) : head.keys + head.BlockOffset(first + head.block_rows);
    const int64_t rows = std::min(head.block_rows, head.count - first);
    int64_t r = 0;
    for (; r + kLanes <= rows; r += kLanes) {
      FetchAhead(next + r * head.head_size, step_bytes);
      FetchAhead(next_table + r * head.head_size, step_bytes);
      simd::Store(logits + first + r,
                  EightLogits<Format>(scratch, head.head_size, keys + r * head.head_size, table + r * head.head_size));
    }
    for (; r < rows; ++r) {
      logits[first + r] =
          OneLogit<Format>(scratch, head.head_size, keys + r * head.head_size, table + r * head.head_size);
    }
  }
}

inline constexpr float kNothing = 1000.0F;  // below the largest logit: e^-87, which adds nothing

// e^(logit - largest) in place; returns 1 / their sum.
inline float Exponentials(float* logits, int64_t count) {
  const float largest = *std::max_element(logits, logits + count);
  std::fill(logits + count, logits + RoundUp(count), largest - kNothing);
  Floats sums = {};
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats value = simd::Exp(simd::Load(logits + i) - largest);
    simd::Store(logits + i, value);
    sums += value;
  }
  return 1.0F / simd::Sum(sums);
}

// attended [kVectors * kLanes] += shares . values; `next`: where the next block's values lie.
template <typename Format, int64_t kVectors>
void AddValues(const float* shares, int64_t rows, const typename Format::Element* values,
               const typename Format::Element* next, int64_t head_size, float* attended) {
  Floats sums[kVectors];
  for (int64_t v = 0; v < kVectors; ++v) sums[v] = simd::Load(attended + v * kLanes);
  constexpr int64_t kRowBytes = kVectors * kLanes * static_cast<int64_t>(sizeof(typename Format::Element));
  for (int64_t r = 0; r < rows; ++r) {
    FetchAhead(next + r * head_size, kRowBytes);
    const Floats share = simd::Splat(shares[r]);
    for (int64_t v = 0; v < kVectors; ++v) {
      sums[v] = simd::MultiplyAdd(share, Format::Load(values + r * head_size + v * kLanes), sums[v]);
    }
  }
  for (int64_t v = 0; v < kVectors; ++v) simd::Store(attended + v * kLanes, sums[v]);
}

template <typename Format>
void WeighValues(const HeadView<Format>& head, const float* shares, float* attended) {
  std::fill_n(attended, head.head_size, 0.0F);
  for (int64_t first = 0; first < head.count; first += head.block_rows) {
    const auto* values = head.values + head.BlockOffset(first);
    const int64_t rows = std::min(head.block_rows, head.count - first);
    // After the last block comes the next head, whose keys lie behind this one's in every page.
    const auto* next = head.IsLast(first) ? head.keys + head.BlockOffset(0) + head.block_rows * head.head_size
                                          : head.values + head.BlockOffset(first + head.block_rows);
    int64_t i = 0;
    for (; i + kValueVectors * kLanes <= head.head_size; i += kValueVectors * kLanes) {
      AddValues<Format, kValueVectors>(shares + first, rows, values + i, next + i, head.head_size, attended + i);
    }
    for (; i + kLanes <= head.head_size; i += kLanes) {
      AddValues<Format, 1>(shares + first, rows, values + i, next + i, head.head_size, attended + i);
    }
    for (; i < head.head_size; ++i) {
      for (int64_t r = 0; r < rows; ++r) {
        attended[i] += shares[first + r] * Format::Number(values[r * head.head_size + i]);
      }
    }
  }
}

// The queries of one head, with the vectors u and v added (null: none) and scaled.
inline void ScaleQuery(const float* query, const float* content_bias, const float* position_bias, float scale,
                       int64_t head_size, Scratch& scratch) {
  scratch.content_query.resize(head_size);
  scratch.position_query.resize(head_size);
  for (int64_t i = 0; i < head_size; ++i) {
    scratch.content_query[i] = (query[i] + (content_bias == nullptr ? 0 : content_bias[i])) * scale;
    scratch.position_query[i] = (query[i] + (position_bias == nullptr ? 0 : position_bias[i])) * scale;
  }
}

// Attention of the scratch's query: [head]. Returns what turns the scratch's shares into a softmax.
template <typename Format>
float AttendRow(const HeadView<Format>& head, Scratch& scratch, float* attended) {
  scratch.shares.resize(RoundUp(head.count));
  float* shares = scratch.shares.data();
  Logits(head, scratch);
  for (int64_t i = 0; head.absent != nullptr && i < head.count; ++i) {
    if (head.absent[i]) shares[i] = std::numeric_limits<float>::lowest();
  }
  const float scale = Exponentials(shares, head.count);
  WeighValues(head, shares, attended);
  for (int64_t i = 0; i < head.head_size; ++i) attended[i] *= scale;
  return scale;
}

}  // namespace retro::attention_row
