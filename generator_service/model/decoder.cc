#include "generator_service/model/decoder.h"

#include <algorithm>
#include <utility>

#include "generator_service/model/attention.h"
#include "generator_service/model/ffw.h"
#include "generator_service/model/retrieved_chunks.h"

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

struct KeysAndValues {
  at::Tensor keys;    // [H, S, c]
  at::Tensor values;  // [H, S, c]
};

// Lets go of what the piece does not see any more.
void SlideCaches(SequenceState& state) {
  if (!state.options.slide) return;
  const int64_t dropped = state.window.Begin(state.position) - state.cached_from;
  if (dropped == 0) return;
  const int64_t kept = state.position - state.cached_from - dropped;
  for (KvCache& cache : state.caches) cache.DropFront(dropped, kept);
  state.cached_from += dropped;
}

// All keys and values that a piece sees, the piece's own [H, T, c] among them.
KeysAndValues Remember(SequenceState& state, int64_t layer, int64_t block, const at::Tensor& keys,
                       const at::Tensor& values) {
  if (!state.keep) return {keys, values};
  KvCache& cache = state.caches[layer];
  const int64_t before = state.position - state.cached_from;
  cache.Write(before, keys, values, block, state.options.reserve_tokens);
  const int64_t seen = before + keys.size(1);
  return {cache.keys().narrow(1, 0, seen), cache.values().narrow(1, 0, seen)};
}

// The rows' positions in their sequences, [N]; undefined where nobody asks.
at::Tensor RowPositions(const ModelWeights& weights, const at::Tensor& tokens, std::span<const DecoderPiece> pieces) {
  if (!weights.positions.defined() && !weights.layers[0].attention.rotary.defined()) return {};
  std::vector<at::Tensor> positions;
  for (const DecoderPiece& piece : pieces) {
    positions.push_back(at::arange(piece.state->position, piece.state->position + piece.rows, tokens.options()));
  }
  return at::cat(positions);
}

// EMB: [N] ids -> [N, d].
at::Tensor Embed(const ModelWeights& weights, const at::Tensor& tokens, const at::Tensor& positions) {
  at::Tensor h = at::embedding(weights.embedding, tokens);
  if (weights.positions.defined()) h = h + at::embedding(weights.positions, positions);
  return weights.embedding_projection ? (*weights.embedding_projection)(h) : h;
}

// Notes which of the rows are pad, where a model masks the pads of its own text.
void RememberPad(const ModelConfig& config, const at::Tensor& tokens, std::span<const DecoderPiece> pieces) {
  if (!config.additive_pad_mask) return;
  for (const DecoderPiece& piece : pieces) {
    SequenceState& state = *piece.state;
    const at::Tensor own = tokens.narrow(0, piece.first_row, piece.rows).eq(config.pad_id);
    state.pad = state.position == 0 ? own : at::cat({state.pad.narrow(0, 0, state.position), own});
  }
}

// ATTN without its residual: each piece over its own sequence. h: [N, d], positions: [N].
at::Tensor SelfAttention(const AttentionWeights& weights, const ModelConfig& config, int64_t layer, const at::Tensor& h,
                         const at::Tensor& positions, std::span<const DecoderPiece> pieces) {
  const at::Tensor x = weights.norm(h);
  const at::Tensor query = weights.rotary(SplitHeads(weights.query(x), weights.heads), positions);  // [H, N, c]
  const at::Tensor key = weights.rotary(SplitHeads(weights.key(x), weights.heads), positions);
  const at::Tensor value = SplitHeads(weights.value(x), weights.heads);
  std::vector<at::Tensor> attended;
  for (const DecoderPiece& piece : pieces) {
    const auto own_rows = [&](const at::Tensor& all) { return all.narrow(1, piece.first_row, piece.rows); };
    const KeysAndValues all = Remember(*piece.state, layer, config.chunk_length, own_rows(key), own_rows(value));
    at::Tensor pad = piece.state->pad;  // of all tokens; the keys are the last of them
    if (pad.defined()) pad = pad.narrow(0, pad.size(0) - all.keys.size(1), all.keys.size(1));
    attended.push_back(
        AttendBack(weights, own_rows(query).unsqueeze(0), all.keys.unsqueeze(0), all.values.unsqueeze(0), pad));
  }
  return weights.output(JoinHeads(attended.size() == 1 ? attended[0] : at::cat(attended, 2)).squeeze(0));
}

// Attention mass of one piece's tokens on the neighbours as they were given.
std::vector<std::vector<float>> CollectMass(const DecoderPiece& piece, std::span<const AttendingSpan> spans,
                                            int64_t cca_layers) {
  std::vector<std::vector<float>> mass(piece.rows);
  for (const AttendingSpan& span : spans) {
    if (span.first_row < piece.first_row || span.first_row >= piece.first_row + piece.rows) continue;
    const at::Tensor mean = (span.mass / static_cast<double>(cca_layers)).to(at::kCPU).contiguous();  // [T, k]
    const int64_t existing = mean.size(1);
    for (int64_t t = 0; t < span.rows; ++t) {
      std::vector<float>& row = mass[span.first_row - piece.first_row + t];
      row.resize(span.memory->given_count);
      const float* values = mean.const_data_ptr<float>() + t * existing;
      for (int64_t j = 0; j < existing; ++j) row[span.memory->given_rows[j]] = values[j];
    }
  }
  return mass;
}

// Moves the states past their pieces.
void Advance(const ModelConfig& config, std::span<const DecoderPiece> pieces, std::span<PieceRetrieval> retrievals,
             std::span<const AttendingSpan> spans) {
  for (size_t i = 0; i < pieces.size(); ++i) {
    SequenceState& state = *pieces[i].state;
    if (pieces[i].want_mass) {
      state.attention_mass = CollectMass(pieces[i], spans, static_cast<int64_t>(config.cca_layers.size()));
    }
    state.position += pieces[i].rows;
    if (retrievals.empty()) continue;
    state.conditioning = retrievals[i].conditioning;
    if (!retrievals[i].memories.empty()) state.memory = retrievals[i].memories.back();
  }
}

}  // namespace

at::Tensor RunDecoder(const ModelWeights& weights, const ModelConfig& config, const at::Tensor& tokens,
                      std::span<const DecoderPiece> pieces) {
  for (const DecoderPiece& piece : pieces) SlideCaches(*piece.state);
  std::vector<PieceRetrieval> retrievals;
  std::vector<AttendingSpan> spans;
  int64_t cca_index = 0;
  const at::Tensor positions = RowPositions(weights, tokens, pieces);
  RememberPad(config, tokens, pieces);
  at::Tensor h = Embed(weights, tokens, positions);  // [N, d]
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const LayerWeights& w = weights.layers[layer];
    h = h + SelfAttention(w.attention, config, layer, h, positions, pieces);
    if (w.cca && cca_index == 0) {
      retrievals = EncodeCompletedChunks(weights, config, h, pieces);
      spans = FindAttendingSpans(config, pieces, retrievals);
    }
    if (w.cca && !spans.empty()) h = h + ChunkedCrossAttention(*w.cca, config, cca_index, h, spans);
    if (w.cca) ++cca_index;
    h = h + Ffw(w.ffw, h);
  }
  for (const DecoderPiece& piece : pieces) {
    if (piece.trace != nullptr) piece.trace->last = h.narrow(0, piece.first_row, piece.rows);
  }
  Advance(config, pieces, retrievals, spans);
  return h;
}

at::Tensor ReadOut(const ModelWeights& weights, const ModelConfig& config, const at::Tensor& h) {
  return weights.readout(config.final_norm ? weights.final_norm(h) : h);
}

}  // namespace retro
