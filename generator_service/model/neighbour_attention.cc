#include "generator_service/model/neighbour_attention.h"

#include <numeric>

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

template <typename Format>
const typename Format::Element* Data(const at::Tensor& tensor) {
  return static_cast<const typename Format::Element*>(tensor.const_data_ptr());
}

// What all heads and queries have in common.
template <typename Format>
class NeighbourPass {
 public:
  NeighbourPass(const AttentionWeights& weights, int64_t cca_index, int64_t neighbour_length,
                std::span<const NeighbourQuery> queries)
      : weights_(weights), cca_index_(cca_index), neighbour_length_(neighbour_length), queries_(queries) {
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
  void Attend(const NeighbourQuery& query, int64_t head, Scratch& scratch) const {
    const at::Tensor& keys = query.memory->keys[cca_index_];  // [heads, k * r, head]
    const at::Tensor& values = query.memory->values[cca_index_];
    const int64_t head_size = keys.size(2);
    // dist = i - i' + m - 1; the table falls from 2m - 2.
    const int64_t first_row = weights_.largest_distance / 2 - query.place;
    const HeadView<Format> view{
        .keys = Data<Format>(keys) + head * keys.stride(0),
        .values = Data<Format>(values) + head * values.stride(0),
        .table = Data<Format>(weights_.positions) + head * weights_.positions.stride(0) + first_row * head_size,
        .block_stride = neighbour_length_ * head_size,
        .block_rows = neighbour_length_,
        .count = keys.size(1),
        .absent = query.memory->absent.defined() ? query.memory->absent.const_data_ptr<bool>() : nullptr,
        .head_size = head_size};
    const auto of_head = [&](const float* vectors) {
      return vectors == nullptr ? vectors : vectors + head * head_size;
    };
    ScaleQuery(query.query + head * head_size, of_head(content_bias_), of_head(position_bias_),
               static_cast<float>(weights_.scale), head_size, scratch);
    const float scale = AttendRow(view, scratch, query.attended + head * head_size);
    if (query.mass == nullptr) return;
    const int64_t neighbours = view.count / neighbour_length_;
    for (int64_t j = 0; j < neighbours; ++j) {
      const auto shares = std::span(scratch.shares).subspan(j * neighbour_length_, neighbour_length_);
      query.mass[head * neighbours + j] = std::accumulate(shares.begin(), shares.end(), 0.0F) * scale;
    }
  }

  const AttentionWeights& weights_;
  const int64_t cca_index_;
  const int64_t neighbour_length_;
  const std::span<const NeighbourQuery> queries_;
  const float* content_bias_ = nullptr;
  const float* position_bias_ = nullptr;
};

template <typename Format>
void RunPass(const AttentionWeights& weights, int64_t cca_index, int64_t neighbour_length,
             std::span<const NeighbourQuery> queries) {
  const NeighbourPass<Format> pass(weights, cca_index, neighbour_length, queries);
  ShareOut(weights.heads * static_cast<int64_t>(queries.size()),
           [&](int64_t begin, int64_t end) { pass.Run(begin, end); });
}

}  // namespace

bool HasNeighbourAttention(const AttentionWeights& weights) {
  if (!weights.positions.defined() || weights.null_key.defined() || weights.positions.requires_grad()) return false;
  const at::ScalarType type = weights.positions.scalar_type();
  return weights.positions.is_cpu() && (type == at::kFloat || type == at::kHalf);
}

void NeighbourAttention(const AttentionWeights& weights, int64_t cca_index, int64_t neighbour_length,
                        std::span<const NeighbourQuery> queries) {
  if (queries.empty()) return;
  if (weights.positions.scalar_type() == at::kHalf) return RunPass<Fp16>(weights, cca_index, neighbour_length, queries);
  RunPass<Fp32>(weights, cca_index, neighbour_length, queries);
}

}  // namespace retro
