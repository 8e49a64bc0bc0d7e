#include "generator_service/model/attention.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <vector>

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

at::Tensor Biased(const at::Tensor& query, const at::Tensor& bias) {
  return bias.defined() ? query + bias.to(query.scalar_type()) : query;
}

// The part of Transformer-XL's logits that distances decide, unscaled, by key of a stretch: [B, H, T, 1, S].
at::Tensor PositionLogits(const AttentionWeights& attention, const AttentionInput& input) {
  const at::Tensor query = Biased(input.query, attention.position_bias);
  const int64_t queries = query.size(2);
  const int64_t stretch = input.key.size(2) / input.stretches;  // S
  // From the distance of the last query and the first key down. One row more than there are distances, or to the end of
  // a causal table: what would lie past that is masked.
  const int64_t first_row = attention.largest_distance - (input.first_query + queries - 1);
  const int64_t rows = std::min(queries + stretch, attention.positions.size(1) - first_row);
  const at::Tensor positions = attention.positions.narrow(1, first_row, rows).to(query.scalar_type());  // [H, D, c]
  // One product a head for the whole batch: one for each of its rows would copy the table as often.
  const at::Tensor by_head = query.transpose(0, 1).flatten(1, 2);             // [H, B * T, c]
  const at::Tensor by_distance = at::bmm(by_head, positions.transpose(1, 2))  // [H, B * T, D]
                                     .unflatten(1, {query.size(0), queries})
                                     .transpose(0, 1);  // [B, H, T, D]
  return ByKey(by_distance, stretch).unsqueeze(3);
}

// Transformer-XL's logits, by key: [B, H, T, stretches * S].
at::Tensor TransformerXlLogits(const AttentionWeights& attention, const AttentionInput& input) {
  const at::Tensor content = at::matmul(Biased(input.query, attention.content_bias), input.key.transpose(2, 3));
  const at::Tensor by_stretch = content.unflatten(3, {input.stretches, -1});
  return (by_stretch + PositionLogits(attention, input)).flatten(3) * attention.scale;
}

// Whether torch's fused kernel does what is asked: it takes logits to add, whose rows must be so long.
bool IsForFusedKernel(const AttentionWeights& attention, const AttentionInput& input) {
  constexpr int64_t kKeysMultiple = 16;
  return input.query.is_cuda() && input.query.scalar_type() == at::kBFloat16 && at::GradMode::is_enabled() &&
         attention.positions.defined() && !attention.null_key.defined() && !input.penalised.defined() &&
         input.key.size(2) % kKeysMultiple == 0;
}

// For training: holds neither logits nor shares for the way back, but the distances' part, one pass over which is
// all that is left of them.
at::Tensor FusedAttention(const AttentionWeights& attention, const AttentionInput& input) {
  const at::Tensor position = PositionLogits(attention, input) * attention.scale;
  at::Tensor added = position.expand({-1, -1, -1, input.stretches, -1}).flatten(3);
  if (input.absent.defined()) added = added.masked_fill(input.absent, -std::numeric_limits<double>::infinity());
  const at::Tensor query = Biased(input.query, attention.content_bias);
  return std::get<0>(at::_scaled_dot_product_efficient_attention(query, input.key, input.value, added.contiguous(),
                                                                 /*compute_log_sumexp=*/true, /*dropout_p=*/0.0,
                                                                 /*is_causal=*/false, attention.scale));
}

// The bias of each query's clamped distances to the keys: [H, T, keys].
at::Tensor BucketBiases(const AttentionWeights& attention, int64_t first_query, int64_t queries, int64_t keys) {
  const at::TensorOptions integers = attention.buckets.options().dtype(at::kLong).requires_grad(false);
  const at::Tensor query_positions = at::arange(first_query, first_query + queries, integers).unsqueeze(1);
  const at::Tensor buckets = (at::arange(keys, integers).unsqueeze(0) - query_positions - attention.lowest_bucket)
                                 .clamp(0, attention.buckets.size(0) - 1);
  return at::embedding(attention.buckets, buckets).permute({2, 0, 1});
}

at::Tensor Logits(const AttentionWeights& attention, const AttentionInput& input) {
  if (attention.positions.defined()) return TransformerXlLogits(attention, input);
  at::Tensor content = at::matmul(input.query, input.key.transpose(2, 3)) * attention.scale;
  if (!attention.buckets.defined()) return content;
  return content + BucketBiases(attention, input.first_query, input.query.size(2), input.key.size(2));
}

}  // namespace

at::Tensor SinusoidRows(double largest, int64_t count, int64_t width, const at::TensorOptions& options) {
  const at::TensorOptions exact = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor distances = largest - at::arange(count, exact);                                  // [count]
  const at::Tensor exponents = at::arange(width / 2, exact) * (-2.0 / static_cast<double>(width));  // [width / 2]
  const at::Tensor angles = distances.unsqueeze(1) * at::pow(kSinusoidBase, exponents).unsqueeze(0);
  return at::cat({angles.sin(), angles.cos()}, 1).to(options);
}

at::Tensor PositionTable(const at::Tensor& matrix, int64_t largest, int64_t count, int64_t heads,
                         SinusoidCache* cache) {
  // Distances come in pairs about the middle one, middle + offset and middle - offset. The sine and cosine of a sum are
  // sums of products: W_R sinusoid(middle +- offset) = even cos(offset) +- odd sin(offset), which is half the work.
  const int64_t width = matrix.size(1);
  const at::TensorOptions options = matrix.options().requires_grad(false);
  const double reach = static_cast<double>(count - 1) / 2;
  const int64_t pairs = (count + 1) / 2;
  at::Tensor made;
  at::Tensor& offsets = cache == nullptr ? made : (*cache)[{count, width}];
  if (!offsets.defined()) offsets = SinusoidRows(reach, pairs, width, options);  // [pairs, width]
  const std::vector<at::Tensor> middle =
      SinusoidRows(static_cast<double>(largest) - reach, 1, width, options).chunk(2, 1);
  const std::vector<at::Tensor> of = matrix.chunk(2, 1);  // the matrices of the sines and of the cosines
  const at::Tensor even = of[0] * middle[0] + of[1] * middle[1];
  const at::Tensor odd = of[0] * middle[1] - of[1] * middle[0];
  const std::vector<at::Tensor> angles = offsets.chunk(2, 1);
  const at::Tensor evens = at::linear(angles[1], even);  // [pairs, H * c]
  const at::Tensor odds = at::linear(angles[0], odd);
  const at::Tensor lower = (evens - odds).narrow(0, 0, count - pairs).flip(0);
  return SplitHeads(at::cat({evens + odds, lower}), heads).contiguous();
}

at::Tensor SplitHeads(const at::Tensor& rows, int64_t heads) {
  return rows.unflatten(-1, {heads, rows.size(-1) / heads}).transpose(-3, -2);
}

at::Tensor JoinHeads(const at::Tensor& split) { return split.transpose(-3, -2).flatten(-2); }

at::Tensor RelativeAttention(const AttentionWeights& attention, const AttentionInput& input, at::Tensor* weights) {
  if (weights == nullptr && IsForFusedKernel(attention, input)) return FusedAttention(attention, input);
  const int64_t keys = input.key.size(2);
  const at::ScalarType type = input.query.scalar_type();
  at::Tensor logits = Logits(attention, input);  // [B, H, T, stretches * S]
  if (input.penalised.defined()) logits = logits - input.penalised.to(logits.scalar_type()) * kPenalty;
  if (input.absent.defined()) logits = logits.masked_fill(input.absent, -std::numeric_limits<double>::infinity());
  at::Tensor value = input.value;
  if (attention.null_key.defined()) {
    const at::Tensor null_logits =
        at::matmul(input.query, attention.null_key.to(type).transpose(1, 2)) * attention.scale;
    logits = at::cat({null_logits, logits}, 3);
    value = at::cat({attention.null_value.to(type).unsqueeze(0).expand({value.size(0), -1, -1, -1}), value}, 2);
  }
  // Sums of many small terms: not in 8 bits of mantissa.
  const at::Tensor shares = logits.softmax(3, type == at::kBFloat16 ? at::kFloat : type);
  if (weights != nullptr) *weights = shares.narrow(3, shares.size(3) - keys, keys);
  return at::matmul(shares.to(type), value);
}

void MaskPadKeys(const ModelConfig& config, const at::Tensor& pad, AttentionInput& input) {
  (config.additive_pad_mask ? input.penalised : input.absent) = pad;
}

}  // namespace retro
