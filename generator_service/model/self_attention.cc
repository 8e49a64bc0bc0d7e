#include "generator_service/model/self_attention.h"

#include <algorithm>
#include <vector>

#include "generator_service/model/attention.h"
#include "generator_service/model/paged_attention.h"

namespace retro {
namespace {

// Queries whose logits are held at a time: bounds the memory of a long prefill, and spares the masked half of its work.
constexpr int64_t kQueryBlock = 256;

// Causal attention of the T last of S tokens. query: [1, H, T, c]; keys, values: [1, H, S, c]; penalised: [S] or
// undefined -> [1, H, T, c].
at::Tensor AttendBack(const AttentionWeights& weights, const at::Tensor& query, const at::Tensor& keys,
                      const at::Tensor& values, const at::Tensor& penalised) {
  const int64_t queries = query.size(2);
  const int64_t before = keys.size(2) - queries;
  std::vector<at::Tensor> blocks;
  for (int64_t begin = 0; begin < queries; begin += kQueryBlock) {
    const int64_t rows = std::min(kQueryBlock, queries - begin);
    const int64_t seen = before + begin + rows;  // keys that the block's last query sees
    AttentionInput input{.query = query.narrow(2, begin, rows),
                         .key = keys.narrow(2, 0, seen),
                         .value = values.narrow(2, 0, seen),
                         .first_query = before + begin};
    if (rows > 1) input.absent = at::ones({rows, seen}, query.options().dtype(at::kBool)).triu(seen - rows + 1);
    if (penalised.defined()) input.penalised = penalised.narrow(0, 0, seen);
    blocks.push_back(RelativeAttention(weights, input));
  }
  return blocks.size() == 1 ? blocks[0] : at::cat(blocks, 2);
}

// The rows of all pieces.
struct Projected {
  at::Tensor query, key, value;  // [H, N, c]
};

KeysAndValues OwnRows(const Projected& all, const DecoderPiece& piece) {
  return {all.key.narrow(1, piece.first_row, piece.rows), all.value.narrow(1, piece.first_row, piece.rows)};
}

// One piece by itself: [T, H * c].
at::Tensor AttendPiece(const AttentionWeights& weights, int64_t layer, const Projected& all,
                       const DecoderPiece& piece) {
  const SequenceState& state = *piece.state;
  const at::Tensor query = all.query.narrow(1, piece.first_row, piece.rows);
  KeysAndValues seen = OwnRows(all, piece);
  if (state.cache) seen = state.cache->Read(layer, state.held() + piece.rows, query.scalar_type());
  at::Tensor penalised = state.pad;  // of all tokens; the keys are the last of them
  if (penalised.defined()) penalised = penalised.slice(0, penalised.size(0) - seen.keys.size(1));
  const at::Tensor attended =
      AttendBack(weights, query.unsqueeze(0), seen.keys.unsqueeze(0), seen.values.unsqueeze(0), penalised);
  return JoinHeads(attended).squeeze(0);
}

// Single new tokens, and all where rows attend by themselves.
bool IsPaged(const ModelWeights& model, int64_t layer, const DecoderPiece& piece) {
  return (piece.rows == 1 || model.apart) && piece.state->cache && !piece.state->pad.defined() &&
         HasPagedAttention(model.layers[layer].attention, piece.state->cache->pool());
}

// All rows of the pieces, straight from their pages: [rows, H * c].
at::Tensor AttendPaged(const AttentionWeights& weights, int64_t layer, const at::Tensor& query,
                       std::span<const DecoderPiece* const> pieces) {
  const at::Tensor rows = JoinHeads(query).contiguous();  // [N, H * c]
  const int64_t inner = rows.size(1);
  std::vector<PagedQuery> queries;
  for (const DecoderPiece* piece : pieces) {
    for (int64_t t = 0; t < piece->rows; ++t) {
      queries.push_back({.query = rows.const_data_ptr<float>() + (piece->first_row + t) * inner,
                         .cache = &*piece->state->cache,
                         .keys = piece->state->held() + t + 1});
    }
  }
  at::Tensor attended = at::empty({static_cast<int64_t>(queries.size()), inner}, rows.options());
  for (size_t i = 0; i < queries.size(); ++i) {
    queries[i].attended = attended.data_ptr<float>() + static_cast<int64_t>(i) * inner;
  }
  PagedAttention(weights, layer, queries);
  return attended;
}

}  // namespace

at::Tensor SelfAttention(const ModelWeights& model, int64_t layer, const at::Tensor& h, const at::Tensor& positions,
                         std::span<const DecoderPiece> pieces) {
  const AttentionWeights& weights = model.layers[layer].attention;
  const at::Tensor x = weights.norm(h);
  const Projected all{.query = weights.rotary(SplitHeads(weights.query(x), weights.heads), positions),
                      .key = weights.rotary(SplitHeads(weights.key(x), weights.heads), positions),
                      .value = SplitHeads(weights.value(x), weights.heads)};
  std::vector<const DecoderPiece*> paged;
  for (const DecoderPiece& piece : pieces) {
    if (piece.state->cache) piece.state->cache->Write(layer, piece.state->held(), OwnRows(all, piece));
    if (IsPaged(model, layer, piece)) paged.push_back(&piece);
  }
  const at::Tensor paged_rows = paged.empty() ? at::Tensor() : AttendPaged(weights, layer, all.query, paged);
  std::vector<at::Tensor> attended;  // by piece: [T, H * c]
  int64_t next_paged = 0;
  for (const DecoderPiece& piece : pieces) {
    if (IsPaged(model, layer, piece)) {
      attended.push_back(paged_rows.narrow(0, next_paged, piece.rows));
      next_paged += piece.rows;
    } else {
      attended.push_back(AttendPiece(weights, layer, all, piece));
    }
  }
  return weights.output(attended.size() == 1 ? attended[0] : at::cat(attended));
}

}  // namespace retro
