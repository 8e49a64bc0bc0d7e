#include "generator_service/model/paged_attention.h"

#include <algorithm>
#include <vector>

#include "common/base/simd.h"
#include "generator_service/model/compute_team.h"

namespace retro {
namespace {

using simd::Floats;
using simd::kLanes;

// Work that is done before another core has heard of it: keys times heads.
constexpr int64_t kSharedWork = 256;
// Columns of the values that are summed at once: their sums stay in registers.
constexpr int64_t kValueVectors = 8;

int64_t RoundUp(int64_t value) { return (value + kLanes - 1) / kLanes * kLanes; }

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

// One head of one query.
template <typename Format>
struct HeadView {
  using Element = typename Format::Element;
  const Element* keys = nullptr;    // of the layer and head: block b at keys + b * block_stride, [m, head]
  const Element* values = nullptr;  // likewise
  const Element* table = nullptr;   // of the head, from the distance of the first key down: [S, head]
  std::span<const int64_t> blocks;
  int64_t block_stride = 0;
  int64_t block_tokens = 0;  // m
  int64_t count = 0;         // S
  int64_t head_size = 0;
};

// Scratch of one worker.
struct Scratch {
  std::vector<float> content_query;   // (q + u) * scale
  std::vector<float> position_query;  // (q + v) * scale
  std::vector<float> shares;          // [S rounded up]: logits, then softmax
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

template <typename Format>
void Logits(const HeadView<Format>& head, Scratch& scratch) {
  float* logits = scratch.shares.data();
  for (int64_t first = 0; first < head.count; first += head.block_tokens) {
    const auto* keys = head.keys + head.blocks[first / head.block_tokens] * head.block_stride;
    const auto* table = head.table + first * head.head_size;
    const int64_t rows = std::min(head.block_tokens, head.count - first);
    int64_t r = 0;
    for (; r + kLanes <= rows; r += kLanes) {
      simd::Store(logits + first + r,
                  EightLogits<Format>(scratch, head.head_size, keys + r * head.head_size, table + r * head.head_size));
    }
    for (; r < rows; ++r) {
      logits[first + r] =
          OneLogit<Format>(scratch, head.head_size, keys + r * head.head_size, table + r * head.head_size);
    }
  }
}

// e^(logit - largest) in place; returns 1 / their sum.
float Exponentials(float* logits, int64_t count) {
  const float largest = *std::max_element(logits, logits + count);
  std::fill(logits + count, logits + RoundUp(count), largest - 1000.0F);  // e^-87: nothing
  Floats sums = {};
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats value = simd::Exp(simd::Load(logits + i) - largest);
    simd::Store(logits + i, value);
    sums += value;
  }
  return 1.0F / simd::Sum(sums);
}

// sums [kVectors * kLanes] += shares . values, `columns` from the values' first.
template <typename Format, int64_t kVectors>
void AddValues(const float* shares, int64_t rows, const typename Format::Element* values, int64_t head_size,
               float* attended) {
  Floats sums[kVectors];
  for (int64_t v = 0; v < kVectors; ++v) sums[v] = simd::Load(attended + v * kLanes);
  for (int64_t r = 0; r < rows; ++r) {
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
  for (int64_t first = 0; first < head.count; first += head.block_tokens) {
    const auto* values = head.values + head.blocks[first / head.block_tokens] * head.block_stride;
    const int64_t rows = std::min(head.block_tokens, head.count - first);
    int64_t i = 0;
    for (; i + kValueVectors * kLanes <= head.head_size; i += kValueVectors * kLanes) {
      AddValues<Format, kValueVectors>(shares + first, rows, values + i, head.head_size, attended + i);
    }
    for (; i + kLanes <= head.head_size; i += kLanes) {
      AddValues<Format, 1>(shares + first, rows, values + i, head.head_size, attended + i);
    }
    for (; i < head.head_size; ++i) {
      for (int64_t r = 0; r < rows; ++r) {
        attended[i] += shares[first + r] * Format::Number(values[r * head.head_size + i]);
      }
    }
  }
}

// What all heads and queries have in common.
template <typename Format>
class PagedPass {
 public:
  PagedPass(const AttentionWeights& weights, int64_t layer, std::span<const PagedQuery> queries)
      : weights_(weights),
        queries_(queries),
        keys_(queries[0].cache->pool().keys(layer)),
        values_(queries[0].cache->pool().values(layer)) {
    if (!weights.content_bias.defined()) return;
    content_bias_ = weights.content_bias.const_data_ptr<float>();
    position_bias_ = weights.position_bias.const_data_ptr<float>();
  }

  // Of all queries' heads, in order.
  void Run(int64_t begin, int64_t end) const {
    thread_local Scratch scratch;
    for (int64_t i = begin; i < end; ++i) Attend(queries_[i / weights_.heads], i % weights_.heads, scratch);
  }

 private:
  using Element = typename Format::Element;

  static const Element* Data(const at::Tensor& tensor) { return static_cast<const Element*>(tensor.const_data_ptr()); }

  void Attend(const PagedQuery& query, int64_t head, Scratch& scratch) const {
    const int64_t head_size = keys_.size(3);
    const int64_t first_row = weights_.largest_distance - (query.keys - 1);
    const HeadView<Format> view{
        .keys = Data(keys_) + head * keys_.stride(1),
        .values = Data(values_) + head * keys_.stride(1),
        .table = Data(weights_.positions) + head * weights_.positions.stride(0) + first_row * head_size,
        .blocks = query.cache->blocks(),
        .block_stride = keys_.stride(0),
        .block_tokens = keys_.size(2),
        .count = query.keys,
        .head_size = head_size};
    ScaleQuery(query.query + head * head_size, head, head_size, scratch);
    scratch.shares.resize(RoundUp(query.keys));
    float* attended = query.attended + head * head_size;
    Logits(view, scratch);
    const float scale = Exponentials(scratch.shares.data(), query.keys);
    WeighValues(view, scratch.shares.data(), attended);
    for (int64_t i = 0; i < head_size; ++i) attended[i] *= scale;
  }

  void ScaleQuery(const float* query, int64_t head, int64_t head_size, Scratch& scratch) const {
    const auto scale = static_cast<float>(weights_.scale);
    scratch.content_query.resize(head_size);
    scratch.position_query.resize(head_size);
    for (int64_t i = 0; i < head_size; ++i) {
      const float content = content_bias_ == nullptr ? 0 : content_bias_[head * head_size + i];
      const float position = position_bias_ == nullptr ? 0 : position_bias_[head * head_size + i];
      scratch.content_query[i] = (query[i] + content) * scale;
      scratch.position_query[i] = (query[i] + position) * scale;
    }
  }

  const AttentionWeights& weights_;
  const std::span<const PagedQuery> queries_;
  const at::Tensor keys_;    // [blocks, heads, m, head]
  const at::Tensor values_;  // likewise
  const float* content_bias_ = nullptr;
  const float* position_bias_ = nullptr;
};

template <typename Format>
void RunPass(const AttentionWeights& weights, int64_t layer, std::span<const PagedQuery> queries) {
  const PagedPass<Format> pass(weights, layer, queries);
  const int64_t heads = weights.heads * static_cast<int64_t>(queries.size());
  int64_t keys = 0;
  for (const PagedQuery& query : queries) keys += query.keys;
  if (keys * weights.heads < kSharedWork) return pass.Run(0, heads);
  ShareOut(heads, [&](int64_t begin, int64_t end) { pass.Run(begin, end); });
}

}  // namespace

bool HasPagedAttention(const AttentionWeights& weights, const KvPool& pool) {
  if (!weights.positions.defined() || weights.null_key.defined()) return false;
  const at::Tensor pages = pool.keys(0);
  const at::ScalarType type = pages.scalar_type();
  return pages.is_cpu() && (type == at::kFloat || type == at::kHalf) && weights.positions.scalar_type() == type;
}

void PagedAttention(const AttentionWeights& weights, int64_t layer, std::span<const PagedQuery> queries) {
  if (queries.empty()) return;
  if (weights.positions.scalar_type() == at::kHalf) return RunPass<Fp16>(weights, layer, queries);
  RunPass<Fp32>(weights, layer, queries);
}

}  // namespace retro
