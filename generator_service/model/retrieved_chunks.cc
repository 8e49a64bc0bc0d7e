#include "generator_service/model/retrieved_chunks.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "generator_service/model/attention.h"
#include "generator_service/model/encoder.h"

namespace retro {
namespace {

// One completed chunk on its way through the encoder.
struct Completed {
  const ChunkNeighbours* neighbours = nullptr;
  at::Tensor conditioning;        // [chunk's tokens, d]
  at::Tensor pad;                 // [chunk's tokens] bool; undefined where the model does not mask the text's pads
  std::vector<int64_t> existing;  // the neighbours that exist
  std::shared_ptr<ChunkMemory> memory;
};

bool Exists(const ModelConfig& config, std::span<const TokenId> neighbour) {
  return !config.mask_pad || config.additive_pad_mask ||
         std::ranges::any_of(neighbour, [&](TokenId id) { return id != config.pad_id; });
}

// Whether CCA adds anything where the chunk's neighbours are those: a null key is there even if all of them are pad.
bool IsAttended(const ModelConfig& config, const Completed& chunk) {
  if (config.null_key) return chunk.neighbours->count > 0;
  if (!config.additive_pad_mask) return !chunk.existing.empty();
  return std::ranges::any_of(chunk.neighbours->tokens, [&](TokenId id) { return id != config.pad_id; });
}

std::span<const TokenId> NeighbourTokens(const ModelConfig& config, const ChunkNeighbours& neighbours, int64_t j) {
  return std::span(neighbours.tokens).subspan(j * config.neighbour_length, config.neighbour_length);
}

// Cuts the piece's conditioning rows, those kept from earlier pieces before them, into the chunks it completes and a
// rest.
std::vector<Completed> CutIntoChunks(const ModelConfig& config, const at::Tensor& h, const DecoderPiece& piece,
                                     at::Tensor& rest) {
  const SequenceState& state = *piece.state;
  const ChunkGeometry& geometry = state.geometry;
  at::Tensor rows = h.narrow(0, piece.first_row, piece.rows);
  if (state.conditioning.defined()) rows = at::cat({state.conditioning, rows});
  const int64_t end = state.position + piece.rows;
  const int64_t start = end - rows.size(0);  // position of rows[0]
  int64_t chunk = geometry.CompleteChunks(state.position);
  std::vector<Completed> completed;
  for (const ChunkNeighbours& neighbours : piece.neighbours) {
    Completed& next = completed.emplace_back();
    next.neighbours = &neighbours;
    next.conditioning = rows.slice(0, geometry.Begin(chunk) - start, geometry.End(chunk) - start);
    if (state.pad.defined()) next.pad = state.pad.slice(0, geometry.Begin(chunk), geometry.End(chunk));
    for (int64_t j = 0; j < neighbours.count; ++j) {
      if (Exists(config, NeighbourTokens(config, neighbours, j))) next.existing.push_back(j);
    }
    ++chunk;
  }
  const int64_t running = geometry.Begin(chunk);
  const bool is_own = state.conditioning.defined() && running == start;
  // A copy, for the sequence must not hold on to the whole batch.
  if (running < end) rest = is_own ? rows : rows.slice(0, running - start).clone();
  return completed;
}

// Conditioning rows and what is absent of them. Before the rows of a short chunk, or after them where the partial chunk
// comes first, stand zeros.
void AddConditioning(const ModelConfig& config, const std::vector<Completed*>& chunks, EncoderInput& input) {
  std::vector<at::Tensor> conditioning;
  std::vector<at::Tensor> absent;
  bool any_absent = false;
  for (const Completed* chunk : chunks) {
    const at::Tensor& rows = chunk->conditioning;
    const int64_t lacking = config.chunk_length - rows.size(0);
    const bool seen = config.partial_chunk_first;
    conditioning.push_back(at::constant_pad_nd(rows, {0, 0, seen ? 0 : lacking, seen ? lacking : 0}));
    const at::Tensor pad =
        chunk->pad.defined() ? chunk->pad : at::zeros({rows.size(0)}, rows.options().dtype(at::kBool));
    absent.push_back(at::constant_pad_nd(pad, {seen ? 0 : lacking, seen ? lacking : 0}, /*value=*/!seen));
    any_absent = any_absent || chunk->pad.defined() || (lacking > 0 && !seen);
  }
  input.conditioning = at::stack(conditioning);
  if (any_absent) input.conditioning_absent = at::stack(absent);
}

// Neighbours and conditioning of the chunks, on the device of h.
EncoderInput MakeEncoderInput(const ModelConfig& config, const at::Tensor& h, const std::vector<Completed*>& chunks) {
  std::vector<int64_t> tokens;
  std::vector<int64_t> chunk_of;
  for (size_t c = 0; c < chunks.size(); ++c) {
    for (const int64_t j : chunks[c]->existing) {
      const std::span<const TokenId> ids = NeighbourTokens(config, *chunks[c]->neighbours, j);
      tokens.insert(tokens.end(), ids.begin(), ids.end());
      chunk_of.push_back(static_cast<int64_t>(c));
    }
  }
  EncoderInput input;
  const int64_t neighbours = static_cast<int64_t>(chunk_of.size());
  input.neighbours = at::tensor(tokens, at::kLong).view({neighbours, config.neighbour_length}).to(h.device());
  input.chunk_of = at::tensor(chunk_of, at::kLong).to(h.device());
  AddConditioning(config, chunks, input);
  return input;
}

// [N, heads, r, head] -> for the `count` neighbours from `first`, as they are kept: [heads, count * r, head].
at::Tensor OfChunk(const AttentionWeights& cca, const at::Tensor& split, int64_t first, int64_t count) {
  const at::ScalarType type = cca.positions.defined() ? cca.positions.scalar_type() : split.scalar_type();
  return split.narrow(0, first, count).to(type).transpose(0, 1).flatten(1, 2).contiguous();
}

// Fills the chunks' memories from E [N, r, EncodedWidth].
void MakeMemories(const ModelWeights& weights, const ModelConfig& config, const EncoderInput& input,
                  const at::Tensor& encoded, const std::vector<Completed*>& chunks) {
  for (Completed* chunk : chunks) {
    chunk->memory = std::make_shared<ChunkMemory>();
    chunk->memory->given_rows = chunk->existing;
    chunk->memory->given_count = chunk->neighbours->count;
  }
  const at::Tensor places = at::arange(config.neighbour_length, input.neighbours.options());
  for (const int64_t layer : config.cca_layers) {
    const AttentionWeights& cca = *weights.layers[layer - 1].cca;
    const at::Tensor keys = cca.rotary(SplitHeads(cca.key(encoded), cca.heads), places);  // [N, heads, r, head]
    const at::Tensor values = SplitHeads(cca.value(encoded), cca.heads);
    int64_t first = 0;
    for (Completed* chunk : chunks) {
      const int64_t count = static_cast<int64_t>(chunk->existing.size());
      chunk->memory->keys.push_back(OfChunk(cca, keys, first, count));
      chunk->memory->values.push_back(OfChunk(cca, values, first, count));
      first += count;
    }
  }
  if (!config.mask_pad) return;
  const at::Tensor absent = input.neighbours.eq(config.pad_id);  // [N, r]
  int64_t first = 0;
  for (Completed* chunk : chunks) {
    const int64_t count = static_cast<int64_t>(chunk->existing.size());
    chunk->memory->absent = absent.narrow(0, first, count).flatten();
    first += count;
  }
}

// E of one piece's chunks as given, with zeros for the neighbours that do not exist.
at::Tensor TraceEncoded(const std::vector<Completed>& completed, const at::Tensor& encoded, int64_t first) {
  std::vector<at::Tensor> chunks;
  for (const Completed& chunk : completed) {
    at::Tensor rows = at::zeros({chunk.neighbours->count, encoded.size(1), encoded.size(2)}, encoded.options());
    for (const int64_t j : chunk.existing) rows[j] = encoded[first++];
    chunks.push_back(rows);
  }
  return at::stack(chunks);
}

void WriteTraces(std::span<const DecoderPiece> pieces, const std::vector<std::vector<Completed>>& completed,
                 const at::Tensor& h, const at::Tensor& encoded) {
  int64_t first = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].trace != nullptr) {
      pieces[i].trace->conditioning = h.narrow(0, pieces[i].first_row, pieces[i].rows);
      if (encoded.defined() && !completed[i].empty()) {
        pieces[i].trace->encoded = TraceEncoded(completed[i], encoded, first);
      }
    }
    for (const Completed& chunk : completed[i]) first += static_cast<int64_t>(chunk.existing.size());
  }
}

// The chunks' memories, and E of all: [N, r, EncodedWidth]; undefined if there are no chunks.
at::Tensor Encode(const ModelWeights& weights, const ModelConfig& config, const at::Tensor& h,
                  std::span<Completed* const> chunks) {
  const size_t together = weights.apart ? 1 : chunks.size();
  std::vector<at::Tensor> encoded;
  for (size_t begin = 0; begin < chunks.size(); begin += together) {
    const auto part = chunks.subspan(begin, together);
    const EncoderInput input = MakeEncoderInput(config, h, {part.begin(), part.end()});
    encoded.push_back(EncodeNeighbours(weights.encoder, config, input));
    MakeMemories(weights, config, input, encoded.back(), {part.begin(), part.end()});
  }
  if (encoded.empty()) return {};
  return encoded.size() == 1 ? encoded[0] : at::cat(encoded);
}

}  // namespace

std::vector<PieceRetrieval> EncodeCompletedChunks(const ModelWeights& weights, const ModelConfig& config,
                                                  const at::Tensor& h, std::span<const DecoderPiece> pieces) {
  const AttentionWeights& first_cca = *weights.layers[config.cca_layers[0] - 1].cca;
  const at::Tensor conditioning = config.conditioning_cca_norm ? first_cca.norm(h) : h;
  std::vector<PieceRetrieval> retrievals(pieces.size());
  std::vector<std::vector<Completed>> completed(pieces.size());
  std::vector<Completed*> to_encode;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (!pieces[i].state->options.retrieval) continue;
    completed[i] = CutIntoChunks(config, conditioning, pieces[i], retrievals[i].conditioning);
    for (Completed& chunk : completed[i]) {
      if (!chunk.existing.empty() || IsAttended(config, chunk)) to_encode.push_back(&chunk);
    }
  }
  const at::Tensor encoded = Encode(weights, config, h, to_encode);
  WriteTraces(pieces, completed, h, encoded);
  for (size_t i = 0; i < pieces.size(); ++i) {
    for (const Completed& chunk : completed[i]) {
      retrievals[i].memories.push_back(IsAttended(config, chunk) ? chunk.memory : nullptr);
    }
  }
  return retrievals;
}

std::vector<AttendingSpan> FindAttendingSpans(const ModelWeights& weights, const ModelConfig& config,
                                              std::span<const DecoderPiece> pieces,
                                              std::span<const PieceRetrieval> retrievals) {
  std::vector<AttendingSpan> spans;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const SequenceState& state = *pieces[i].state;
    const ChunkGeometry& geometry = state.geometry;
    const int64_t known = geometry.CompleteChunks(state.position);  // chunks complete before the piece
    const int64_t end = state.position + pieces[i].rows;
    for (int64_t position = state.position; position < end && state.options.retrieval;) {
      const int64_t chunk = geometry.AttendedChunk(position);
      const int64_t next = weights.apart ? position + 1 : std::min(end, geometry.End(chunk + 1) - 1);
      ChunkMemoryPtr memory;
      if (chunk >= 0) memory = chunk < known ? state.memory : retrievals[i].memories[chunk - known];
      if (memory != nullptr) {
        spans.push_back({.first_row = pieces[i].first_row + position - state.position,
                         .rows = next - position,
                         .first_place = geometry.Place(position, chunk),
                         .memory = std::move(memory),
                         .gate = state.options.gate.value_or(config.gate),
                         .apart = weights.apart,
                         .want_mass = pieces[i].want_mass});
      }
      position = next;
    }
  }
  return spans;
}

}  // namespace retro
