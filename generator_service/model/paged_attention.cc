#include "generator_service/model/paged_attention.h"

#include "generator_service/model/attention_row.h"
#include "generator_service/model/compute_team.h"

namespace retro {
namespace {

using attention_row::AttendRow;
using attention_row::Fp16;
using attention_row::Fp32;
using attention_row::HeadView;
using attention_row::ScaleQuery;
using attention_row::Scratch;

// Work that is done before another core has heard of it: keys times heads.
constexpr int64_t kSharedWork = 256;

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
        .table_step = keys_.size(2),
        .blocks = query.cache->blocks(),
        .block_stride = keys_.stride(0),
        .block_rows = keys_.size(2),
        .count = query.keys,
        .head_size = head_size};
    const auto of_head = [&](const float* vectors) {
      return vectors == nullptr ? vectors : vectors + head * head_size;
    };
    ScaleQuery(query.query + head * head_size, of_head(content_bias_), of_head(position_bias_),
               static_cast<float>(weights_.scale), head_size, scratch);
    AttendRow(view, scratch, query.attended + head * head_size);
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
