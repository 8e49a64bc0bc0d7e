#include "generator_service/model/fixed_step.h"

#include <algorithm>
#include <limits>

#include "generator_service/model/decoder.h"
#include "generator_service/model/ffw.h"
#include "generator_service/model/retrieved_chunks.h"

namespace retro {
namespace {

constexpr double kMasked = -std::numeric_limits<double>::infinity();

at::Tensor Biased(const at::Tensor& query, const at::Tensor& bias /* [H, 1, c] or undefined */) {
  return bias.defined() ? query + bias.squeeze(1).to(query.scalar_type()) : query;
}

at::Tensor SplitRows(const at::Tensor& rows /* [B, H * c] */, int64_t heads) {
  return rows.unflatten(1, {heads, rows.size(1) / heads});
}

// What several matrices of bf16 take: turned once.
at::Tensor InTypeOf(const KvPool& pool, const at::Tensor& rows) {
  return pool.keys(0).scalar_type() == at::kBFloat16 ? rows.to(at::kBFloat16) : rows;
}

// Where a step's self-attention finds things, the same in all layers. The pool is seen as rows.
struct SelfPlaces {
  at::Tensor written;   // [B * H] of rows [c]: the new keys
  at::Tensor read;      // [B * H * C] of rows [m * c]: the context's
  at::Tensor distance;  // [B, C * m] rows of the table of distances
  at::Tensor absent;    // [B, 1, C * m]
};

// And that to neighbours.
struct NeighbourPlaces {
  at::Tensor distance;  // [B, r]
  at::Tensor absent;    // [B, 1, k * r]
};

// Rows of a table [H, D, c]: key s has row first[b] + s. Those past the table's ends are of keys that are masked.
at::Tensor DistanceRows(const at::Tensor& table, const at::Tensor& first /* [B] */, int64_t keys) {
  return (first.unsqueeze(1) + at::arange(keys, first.options())).clamp(0, table.size(1) - 1);
}

// The table of distances from C * m - 1 down: none of a key that is there is larger.
at::Tensor TableFor(const AttentionWeights& attention, int64_t keys) {
  const int64_t first_row = std::max<int64_t>(attention.largest_distance - (keys - 1), 0);
  return attention.positions.narrow(1, first_row, attention.largest_distance + 1 - first_row);
}

SelfPlaces PlacesOf(const AttentionWeights& attention, const KvPool& pool, const FixedStepInput& input) {
  const int64_t m = pool.block_tokens();
  const int64_t keys = input.blocks.size(0) * m;
  const at::Tensor heads = at::arange(attention.heads, input.block.options());
  const at::Tensor block_rows = input.block.unsqueeze(1) * attention.heads + heads;  // [B, H]
  const at::Tensor table = TableFor(attention, keys);
  return {.written = (block_rows * m + input.in_block.unsqueeze(1)).flatten(),
          .read = (input.blocks.t().unsqueeze(1) * attention.heads + heads.unsqueeze(1)).flatten(),
          .distance = DistanceRows(table, table.size(1) - 1 - input.held, keys),
          .absent = at::arange(keys, input.held.options()).gt(input.held.unsqueeze(1)).unsqueeze(1)};
}

// eq. 6: the distance to place i' is i - i' + m - 1, in row 2m-2 - (i - i' + m - 1) of the table.
NeighbourPlaces PlacesOf(const AttentionWeights& attention, const ModelConfig& config, const DecodeSlots& slots,
                         const FixedStepInput& input) {
  const at::Tensor first = config.chunk_length - 1 - input.attending;
  return {.distance = DistanceRows(attention.positions, first, config.neighbour_length),
          .absent = slots.absent().index_select(0, input.slot).unsqueeze(1)};
}

// Transformer-XL's part of the logits that distances decide, scaled: [B, H, keys].
at::Tensor DistanceLogits(const AttentionWeights& attention, const at::Tensor& query, const at::Tensor& table,
                          const at::Tensor& distance) {
  const at::Tensor biased = (Biased(query, attention.position_bias) * attention.scale).transpose(0, 1);  // [H, B, c]
  const at::Tensor by_row = at::matmul(biased, table.to(query.scalar_type()).transpose(1, 2));           // [H, B, D]
  return by_row.gather(2, distance.unsqueeze(0).expand({table.size(0), -1, -1})).transpose(0, 1);
}

// query: [B, H, c], key and value: [B, H, S, c] -> [B, H * c]
at::Tensor Attend(const AttentionWeights& attention, const at::Tensor& query, const at::Tensor& key,
                  const at::Tensor& value, const at::Tensor& distance_logits /* [B, H, S] */,
                  const at::Tensor& absent) {
  const at::Tensor mask = distance_logits.masked_fill(absent, kMasked).unsqueeze(2);
  return at::scaled_dot_product_attention(Biased(query, attention.content_bias).unsqueeze(2), key, value, mask,
                                          /*dropout_p=*/0.0, /*is_causal=*/false, attention.scale)
      .flatten(1);
}

at::Tensor AttendToItself(const AttentionWeights& attention, const KvPool& pool, int64_t layer, const at::Tensor& h,
                          const SelfPlaces& places) {
  const at::Tensor x = InTypeOf(pool, attention.norm(h));
  const int64_t rows = x.size(0);
  const auto write = [&](const at::Tensor& memory, const Linear& matrix) {
    const at::Tensor made = matrix(x).view({rows * attention.heads, -1});
    memory.view({-1, memory.size(3)}).index_copy_(0, places.written, made.to(memory.scalar_type()));
  };
  write(pool.keys(layer), attention.key);
  write(pool.values(layer), attention.value);
  const at::Tensor query = SplitRows(attention.query(x), attention.heads);
  const auto read = [&](const at::Tensor& memory) {
    return memory.view({-1, memory.size(2) * memory.size(3)})
        .index_select(0, places.read)
        .to(query.scalar_type())
        .view({rows, attention.heads, -1, memory.size(3)});
  };
  const at::Tensor logits =
      DistanceLogits(attention, query, TableFor(attention, places.absent.size(2)), places.distance);
  return attention.output(
      Attend(attention, query, read(pool.keys(layer)), read(pool.values(layer)), logits, places.absent));
}

// What CCA adds: [B, d], fp32.
at::Tensor AttendToNeighbours(const AttentionWeights& attention, const KvPool& pool, const DecodeSlots& slots,
                              int64_t cca_index, const at::Tensor& h, const FixedStepInput& input,
                              const NeighbourPlaces& places) {
  const at::Tensor query = SplitRows(attention.query(InTypeOf(pool, attention.norm(h))), attention.heads);
  const auto read = [&](const at::Tensor& memory) {
    return memory.index_select(0, input.slot).to(query.scalar_type());  // [B, H, k * r, c]
  };
  const at::Tensor of_one = DistanceLogits(attention, query, attention.positions, places.distance);  // [B, H, r]
  const int64_t neighbours = places.absent.size(2) / of_one.size(2);
  const at::Tensor logits = of_one.unsqueeze(2).expand({-1, -1, neighbours, -1}).flatten(2);
  const at::Tensor attended =
      Attend(attention, query, read(slots.keys(cca_index)), read(slots.values(cca_index)), logits, places.absent);
  return attention.output(attended).to(at::kFloat) * input.gate.unsqueeze(1);
}

}  // namespace

bool HasFixedStep(const ModelConfig& config) {
  return config.positions == Positions::kTransformerXl && !config.cca_layers.empty() &&
         config.learned_positions == LearnedPositions::kNone && !config.post_norm && !config.null_key &&
         !config.additive_pad_mask;
}

bool IsDecodeRow(const SequenceState& state) {
  return state.position > 0 && state.position < state.window.Room(0) && !state.options.slide;
}

at::Tensor BeginFixedStep(const ModelWeights& weights, const ModelConfig& config, const KvPool& pool,
                          const DecodeSlots& slots, const FixedStepInput& input) {
  const SelfPlaces places = PlacesOf(weights.layers[0].attention, pool, input);
  at::Tensor h = weights.embedding(input.token);
  if (weights.embedding_projection) h = (*weights.embedding_projection)(h);
  const int64_t last = config.cca_layers[0] - 1;
  for (int64_t layer = 0; layer <= last; ++layer) {
    const LayerWeights& w = weights.layers[layer];
    h = w.attention.residual(h, AttendToItself(w.attention, pool, layer, h, places));
    if (layer < last) h = w.ffw.residual(h, Ffw(w.ffw, h));
  }
  at::Tensor conditioning = slots.conditioning();
  conditioning.index_put_({input.slot, input.in_chunk},
                          config.conditioning_cca_norm ? weights.layers[last].cca->norm(h) : h);
  return h;
}

std::vector<ChunkMemoryPtr> EncodeForSlots(const ModelWeights& weights, const ModelConfig& config, DecodeSlots& slots,
                                           const at::Tensor& h, std::span<const CompletingRow> rows) {
  std::vector<DecoderPiece> pieces;
  pieces.reserve(rows.size());
  for (const CompletingRow& row : rows) {
    pieces.push_back({.state = row.state, .first_row = row.row, .rows = 1, .neighbours = row.neighbours});
  }
  std::vector<ChunkMemoryPtr> memories;
  memories.reserve(rows.size());
  const std::vector<PieceRetrieval> retrievals = EncodeCompletedChunks(weights, config, h, pieces);
  for (size_t i = 0; i < rows.size(); ++i) {
    memories.push_back(retrievals[i].memories[0]);
    slots.BringMemory(rows[i].slot, memories.back());
  }
  return memories;
}

at::Tensor EndFixedStep(const ModelWeights& weights, const ModelConfig& config, const KvPool& pool,
                        const DecodeSlots& slots, const FixedStepInput& input, const at::Tensor& begun) {
  const SelfPlaces own = PlacesOf(weights.layers[0].attention, pool, input);
  const int64_t first = config.cca_layers[0] - 1;
  const NeighbourPlaces neighbours = PlacesOf(*weights.layers[first].cca, config, slots, input);
  at::Tensor h = begun;
  int64_t cca_index = 0;
  for (int64_t layer = first; layer < config.layers; ++layer) {
    const LayerWeights& w = weights.layers[layer];
    if (layer > first) h = w.attention.residual(h, AttendToItself(w.attention, pool, layer, h, own));
    if (w.cca) h = w.cca->residual(h, AttendToNeighbours(*w.cca, pool, slots, cca_index++, h, input, neighbours));
    h = w.ffw.residual(h, Ffw(w.ffw, h));
  }
  return ReadOut(weights, config, h);
}

}  // namespace retro
