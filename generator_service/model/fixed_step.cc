#include "generator_service/model/fixed_step.h"

#include <ATen/TensorIndexing.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "generator_service/model/decoder.h"
#include "generator_service/model/ffw.h"

namespace retro {
namespace {

constexpr double kMasked = -std::numeric_limits<double>::infinity();

at::Tensor Biased(const at::Tensor& query, const at::Tensor& bias /* [H, 1, c] or undefined */) {
  return bias.defined() ? query + bias.squeeze(1).to(query.scalar_type()) : query;
}

at::Tensor SplitRows(const at::Tensor& rows /* [B, H * c] */, int64_t heads) {
  return rows.unflatten(1, {heads, rows.size(1) / heads});
}

// Transformer-XL's part of the logits that distances decide: key s of row b has row first[b] + s of `table`
// [H, D, c] -> [B, H, keys]. Rows past the table's ends are of keys that are masked.
at::Tensor PositionLogits(const AttentionWeights& attention, const at::Tensor& query, const at::Tensor& table,
                          const at::Tensor& first, int64_t keys) {
  const at::Tensor biased = Biased(query, attention.position_bias).transpose(0, 1);             // [H, B, c]
  const at::Tensor by_row = at::matmul(biased, table.to(query.scalar_type()).transpose(1, 2));  // [H, B, D]
  const at::Tensor rows = (first.unsqueeze(1) + at::arange(keys, first.options()))              // [B, keys]
                              .clamp(0, table.size(1) - 1);
  return by_row.gather(2, rows.unsqueeze(0).expand({table.size(0), -1, -1})).transpose(0, 1);
}

at::Tensor Shares(const at::Tensor& logits /* [B, H, S] */, const at::Tensor& absent /* [B, S] */) {
  const at::ScalarType type = logits.scalar_type();
  return logits.masked_fill(absent.unsqueeze(1), kMasked)
      .softmax(2, type == at::kBFloat16 ? at::kFloat : type)
      .to(type);
}

// query: [B, H, c] -> [B, H * c]. Products are made page by page: nothing but the pages is copied.
at::Tensor AttendToPages(const AttentionWeights& attention, const KvPool& pool, int64_t layer, const at::Tensor& query,
                         const FixedStepInput& input) {
  const int64_t blocks = input.blocks.size(0);
  const int64_t rows = query.size(0);
  const int64_t heads = query.size(1);
  const int64_t m = pool.block_tokens();
  const int64_t seen = blocks * m;
  const at::Tensor pages = input.blocks.flatten();
  const auto gather = [&](const at::Tensor& memory) {
    return memory.index_select(0, pages).to(query.scalar_type()).unflatten(0, {blocks, rows});  // [C, B, H, m, c]
  };
  const at::Tensor keys = gather(pool.keys(layer));
  const at::Tensor content = at::matmul(Biased(query, attention.content_bias).unsqueeze(2), keys.transpose(3, 4))
                                 .squeeze(3)
                                 .permute({1, 2, 0, 3})
                                 .flatten(2);  // [B, H, C * m]
  // Distances from seen - 1 down: none of a key that is there is larger.
  const int64_t first_row = std::max<int64_t>(attention.largest_distance - (seen - 1), 0);
  const at::Tensor table = attention.positions.narrow(1, first_row, attention.largest_distance + 1 - first_row);
  const at::Tensor first = attention.largest_distance - first_row - input.held;
  const at::Tensor logits = (content + PositionLogits(attention, query, table, first, seen)) * attention.scale;
  const at::Tensor absent = at::arange(seen, input.held.options()).gt(input.held.unsqueeze(1));  // [B, C * m]
  const at::Tensor shares = Shares(logits, absent).unflatten(2, {blocks, m}).permute({2, 0, 1, 3}).unsqueeze(3);
  return at::matmul(shares, gather(pool.values(layer))).sum(0).view({rows, heads * query.size(2)});
}

at::Tensor AttendToItself(const AttentionWeights& attention, const KvPool& pool, int64_t layer, const at::Tensor& h,
                          const FixedStepInput& input) {
  const at::Tensor x = attention.norm(h);
  const auto write = [&](at::Tensor memory, const Linear& matrix) {
    memory.index_put_({input.block, at::indexing::Slice(), input.in_block},
                      SplitRows(matrix(x), attention.heads).to(memory.scalar_type()));
  };
  write(pool.keys(layer), attention.key);
  write(pool.values(layer), attention.value);
  const at::Tensor query = SplitRows(attention.query(x), attention.heads);
  return attention.output(AttendToPages(attention, pool, layer, query, input));
}

// What CCA adds: [B, d], fp32.
at::Tensor AttendToNeighbours(const AttentionWeights& attention, const ModelConfig& config, const DecodeSlots& slots,
                              int64_t cca_index, const at::Tensor& h, const FixedStepInput& input) {
  const int64_t r = config.neighbour_length;
  const at::Tensor query = SplitRows(attention.query(attention.norm(h)), attention.heads);
  const auto gather = [&](const at::Tensor& memory) {
    return memory.index_select(0, input.slot).to(query.scalar_type());  // [B, H, k * r, c]
  };
  const at::Tensor content =
      at::matmul(Biased(query, attention.content_bias).unsqueeze(2), gather(slots.keys(cca_index)).transpose(2, 3))
          .squeeze(2)
          .unflatten(2, {-1, r});  // [B, H, k, r]
  // eq. 6: the distance to place i' is i - i' + m - 1, in row 2m-2 - (i - i' + m - 1) of the table.
  const at::Tensor first = config.chunk_length - 1 - input.attending;
  const at::Tensor position = PositionLogits(attention, query, attention.positions, first, r);
  const at::Tensor logits = (content + position.unsqueeze(2)).flatten(2) * attention.scale;
  const at::Tensor shares = Shares(logits, slots.absent().index_select(0, input.slot)).unsqueeze(2);
  const at::Tensor attended = at::matmul(shares, gather(slots.values(cca_index))).flatten(1);  // [B, H * c]
  return attention.output(attended).to(at::kFloat) * input.gate.unsqueeze(1);
}

}  // namespace

bool HasFixedStep(const ModelConfig& config) {
  return config.positions == Positions::kTransformerXl && !config.cca_layers.empty() &&
         config.learned_positions == LearnedPositions::kNone && !config.post_norm && !config.null_key &&
         !config.additive_pad_mask;
}

bool IsPlainDecodeRow(const SequenceState& state) {
  return state.position > 0 && state.position < state.window.Room(0) && !state.options.slide &&
         (!state.options.retrieval ||
          state.geometry.CompleteChunks(state.position + 1) == state.geometry.CompleteChunks(state.position));
}

at::Tensor RunFixedStep(const ModelWeights& weights, const ModelConfig& config, const KvPool& pool,
                        const DecodeSlots& slots, const FixedStepInput& input) {
  at::Tensor h = weights.embedding(input.token);
  if (weights.embedding_projection) h = (*weights.embedding_projection)(h);
  int64_t cca_index = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const LayerWeights& w = weights.layers[layer];
    h = w.attention.residual(h, AttendToItself(w.attention, pool, layer, h, input));
    if (w.cca) {
      if (cca_index == 0) {
        at::Tensor conditioning = slots.conditioning();
        conditioning.index_put_({input.slot, input.in_chunk}, config.conditioning_cca_norm ? w.cca->norm(h) : h);
      }
      h = w.cca->residual(h, AttendToNeighbours(*w.cca, config, slots, cca_index++, h, input));
    }
    h = w.ffw.residual(h, Ffw(w.ffw, h));
  }
  return ReadOut(weights, config, h);
}

}  // namespace retro
