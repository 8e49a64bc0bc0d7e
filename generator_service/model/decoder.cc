#include "generator_service/model/decoder.h"

#include <algorithm>
#include <utility>

#include "generator_service/model/ffw.h"
#include "generator_service/model/retrieved_chunks.h"
#include "generator_service/model/self_attention.h"

namespace retro {
namespace {

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
  at::Tensor h = weights.embedding(tokens);
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

// The part of a layer that attends to neighbours: [N, d]. In a post-norm model every token of a sequence with retrieval
// passes its norm, whether it attends to any or not.
at::Tensor AttendToNeighbours(const AttentionWeights& weights, const ModelConfig& config, int64_t cca_index,
                              const at::Tensor& h, std::span<const DecoderPiece> pieces,
                              std::span<AttendingSpan> spans) {
  if (spans.empty() && !config.post_norm) return h;
  const at::Tensor added =
      spans.empty() ? at::zeros_like(h) : ChunkedCrossAttention(weights, config, cca_index, h, spans);
  at::Tensor joined = weights.residual(h, added);
  if (!config.post_norm) return joined;
  std::vector<at::Tensor> rows;
  rows.reserve(pieces.size());
  for (const DecoderPiece& piece : pieces) {
    rows.push_back((piece.state->options.retrieval ? joined : h).narrow(0, piece.first_row, piece.rows));
  }
  return at::cat(rows);
}

// What the pieces leave behind, made before any of it is kept.
std::vector<SequenceMove> Moves(const ModelConfig& config, std::span<const DecoderPiece> pieces,
                                std::span<PieceRetrieval> retrievals, std::span<const AttendingSpan> spans) {
  std::vector<SequenceMove> moves(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    moves[i].state = pieces[i].state;
    moves[i].rows = pieces[i].rows;
    moves[i].memory = pieces[i].state->memory;
    if (pieces[i].want_mass) {
      moves[i].attention_mass = CollectMass(pieces[i], spans, static_cast<int64_t>(config.cca_layers.size()));
    }
    if (retrievals.empty()) continue;
    moves[i].conditioning = retrievals[i].conditioning;
    if (!retrievals[i].memories.empty()) moves[i].memory = retrievals[i].memories.back();
  }
  return moves;
}

}  // namespace

DecoderPass RunDecoder(const ModelWeights& weights, const ModelConfig& config, const at::Tensor& tokens,
                       std::span<const DecoderPiece> pieces) {
  std::vector<PieceRetrieval> retrievals;
  std::vector<AttendingSpan> spans;
  int64_t cca_index = 0;
  const at::Tensor positions = RowPositions(weights, tokens, pieces);
  RememberPad(config, tokens, pieces);
  at::Tensor h = Embed(weights, tokens, positions);  // [N, d]
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const LayerWeights& w = weights.layers[layer];
    h = w.attention.residual(h, SelfAttention(weights, layer, h, positions, pieces));
    if (w.cca && cca_index == 0) {
      retrievals = EncodeCompletedChunks(weights, config, h, pieces);
      spans = FindAttendingSpans(weights, config, pieces, retrievals);
    }
    if (w.cca) h = AttendToNeighbours(*w.cca, config, cca_index++, h, pieces, spans);
    h = w.ffw.residual(h, Ffw(w.ffw, h));
  }
  for (const DecoderPiece& piece : pieces) {
    if (piece.trace != nullptr) piece.trace->last = h.narrow(0, piece.first_row, piece.rows);
  }
  return {.h = h, .moves = Moves(config, pieces, retrievals, spans)};
}

void Advance(std::span<SequenceMove> moves) noexcept {
  for (SequenceMove& move : moves) {
    SequenceState& state = *move.state;
    state.position += move.rows;
    state.conditioning = std::move(move.conditioning);
    state.memory = std::move(move.memory);
    if (move.attention_mass.has_value()) state.attention_mass = *std::move(move.attention_mass);
  }
}

at::Tensor ReadOut(const ModelWeights& weights, const ModelConfig& config, const at::Tensor& h) {
  return weights.readout.ToFloat(config.final_norm ? weights.final_norm(h) : h);
}

}  // namespace retro
