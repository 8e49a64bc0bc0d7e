#include "generator_service/model/attention.h"

#include <cmath>
#include <limits>

namespace retro {
namespace {

constexpr double kSinusoidBase = 10000.0;

// Row t of `logits` [B, H, T, D] holds a logit for every distance, falling from that of the last query and the first
// key; the logit of (t, s) is in column s + T - 1 - t. Reading the flat rows with a stride of D - 1 brings it to column
// s: [B, H, T, S].
at::Tensor ByKey(const at::Tensor& logits, int64_t keys) {
  const int64_t queries = logits.size(2);
  const int64_t distances = logits.size(3);
  return logits.flatten(2)
      .narrow(2, queries - 1, queries * (distances - 1))
      .unflatten(2, {queries, distances - 1})
      .narrow(3, 0, keys);
}

}  // namespace

at::Tensor SinusoidRows(int64_t largest, int64_t count, int64_t width, const at::TensorOptions& options) {
  const at::TensorOptions exact = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor distances = largest - at::arange(count, exact);                                  // [count]
  const at::Tensor exponents = at::arange(width / 2, exact) * (-2.0 / static_cast<double>(width));  // [width / 2]
  const at::Tensor angles = distances.unsqueeze(1) * at::pow(kSinusoidBase, exponents).unsqueeze(0);
  return at::cat({angles.sin(), angles.cos()}, 1).to(options);
}

at::Tensor PositionTable(const at::Tensor& matrix, int64_t largest, int64_t count, int64_t heads) {
  const at::Tensor rows = SinusoidRows(largest, count, matrix.size(1), matrix.options().requires_grad(false));
  return SplitHeads(at::linear(rows, matrix), heads).contiguous();
}

at::Tensor SplitHeads(const at::Tensor& rows, int64_t heads) {
  return rows.unflatten(-1, {heads, rows.size(-1) / heads}).transpose(-3, -2);
}

at::Tensor JoinHeads(const at::Tensor& split) { return split.transpose(-3, -2).flatten(-2); }

at::Tensor RelativeAttention(const AttentionWeights& attention, const AttentionInput& input, at::Tensor* weights) {
  const bool biased = attention.content_bias.defined();
  const at::Tensor content_query = biased ? input.query + attention.content_bias : input.query;
  const at::Tensor position_query = biased ? input.query + attention.position_bias : input.query;
  const int64_t stretch = input.key.size(2) / input.stretches;                      // S
  const at::Tensor content = at::matmul(content_query, input.key.transpose(2, 3));  // [B, H, T, stretches * S]
  const at::Tensor by_distance = at::matmul(position_query, input.positions.transpose(1, 2));  // [B, H, T, D]
  const at::Tensor position = ByKey(by_distance, stretch).unsqueeze(3);                        // [B, H, T, 1, S]
  at::Tensor logits = (content.unflatten(3, {input.stretches, stretch}) + position).flatten(3) /
                      std::sqrt(static_cast<double>(input.query.size(3)));
  if (input.absent.defined()) logits = logits.masked_fill(input.absent, -std::numeric_limits<double>::infinity());
  const at::Tensor shares = logits.softmax(3);
  if (weights != nullptr) *weights = shares;
  return at::matmul(shares, input.value);
}

}  // namespace retro
