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
  std::vector<int64_t> existing;  // the neighbours that exist
  std::shared_ptr<ChunkMemory> memory;
};

bool Exists(const ModelConfig& config, std::span<const TokenId> neighbour) {
  return !config.mask_pad || std::ranges::any_of(neighbour, [&](TokenId id) { return id != config.pad_id; });
}

std::span<const TokenId> NeighbourTokens(const ModelConfig& config, const ChunkNeighbours& neighbours, int64_t j) {
  return std::span(neighbours.tokens).subspan(j * config.neighbour_length, config.neighbour_length);
}

// Cuts the piece's activations, those kept from earlier pieces before them, into the chunks it completes and a rest.
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
    for (int64_t j = 0; j < neighbours.count; ++j) {
      if (Exists(config, NeighbourTokens(config, neighbours, j))) next.existing.push_back(j);
    }
    ++chunk;
  }
  const int64_t running = geometry.Begin(chunk);
  // A copy, for the sequence must not hold on to the whole batch.
  if (running < end) rest = rows.slice(0, running - start).clone();
  return completed;
}

// Neighbours and conditioning of the chunks that have any, on the device of h.
EncoderInput MakeEncoderInput(const ModelConfig& config, const at::Tensor& h, const std::vector<Completed*>& chunks) {
  const int64_t m = config.chunk_length;
  std::vector<int64_t> tokens;
  std::vector<int64_t> chunk_of;
  std::vector<at::Tensor> conditioning;
  const at::TensorOptions cpu_bool = at::TensorOptions().dtype(at::kBool);
  at::Tensor absent = at::zeros({static_cast<int64_t>(chunks.size()), m}, cpu_bool);
  bool any_short = false;
  for (size_t c = 0; c < chunks.size(); ++c) {
    for (const int64_t j : chunks[c]->existing) {
      const std::span<const TokenId> ids = NeighbourTokens(config, *chunks[c]->neighbours, j);
      tokens.insert(tokens.end(), ids.begin(), ids.end());
      chunk_of.push_back(static_cast<int64_t>(c));
    }
    const int64_t lacking = m - chunks[c]->conditioning.size(0);
    conditioning.push_back(at::constant_pad_nd(chunks[c]->conditioning, {0, 0, lacking, 0}));
    if (lacking > 0) absent[static_cast<int64_t>(c)].narrow(0, 0, lacking).fill_(true);
    any_short = any_short || lacking > 0;
  }
  EncoderInput input;
  input.neighbours = at::tensor(tokens, at::kLong).view({-1, config.neighbour_length}).to(h.device());
  input.chunk_of = at::tensor(chunk_of, at::kLong).to(h.device());
  input.conditioning = at::stack(conditioning);
  if (any_short) input.conditioning_absent = absent.to(h.device());
  return input;
}

// [N, r, inner] -> for the `count` neighbours from `first`: [heads, count * r, head].
at::Tensor OfChunk(const at::Tensor& projected, int64_t first, int64_t count, int64_t heads) {
  return SplitHeads(projected.narrow(0, first, count).flatten(0, 1), heads).contiguous();
}

// Fills the chunks' memories from E [N, r, d'].
void MakeMemories(const ModelWeights& weights, const ModelConfig& config, const EncoderInput& input,
                  const at::Tensor& encoded, const std::vector<Completed*>& chunks) {
  for (Completed* chunk : chunks) {
    chunk->memory = std::make_shared<ChunkMemory>();
    chunk->memory->given_rows = chunk->existing;
    chunk->memory->given_count = chunk->neighbours->count;
  }
  for (const int64_t layer : config.cca_layers) {
    const AttentionWeights& cca = *weights.layers[layer - 1].cca;
    const at::Tensor keys = cca.key(encoded);
    const at::Tensor values = cca.value(encoded);
    int64_t first = 0;
    for (Completed* chunk : chunks) {
      const int64_t count = static_cast<int64_t>(chunk->existing.size());
      chunk->memory->keys.push_back(OfChunk(keys, first, count, cca.heads));
      chunk->memory->values.push_back(OfChunk(values, first, count, cca.heads));
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

}  // namespace

std::vector<PieceRetrieval> EncodeCompletedChunks(const ModelWeights& weights, const ModelConfig& config,
                                                  const at::Tensor& h, std::span<const DecoderPiece> pieces) {
  std::vector<PieceRetrieval> retrievals(pieces.size());
  std::vector<std::vector<Completed>> completed(pieces.size());
  std::vector<Completed*> with_neighbours;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (!pieces[i].state->options.retrieval) continue;
    completed[i] = CutIntoChunks(config, h, pieces[i], retrievals[i].conditioning);
    for (Completed& chunk : completed[i]) {
      if (!chunk.existing.empty()) with_neighbours.push_back(&chunk);
    }
  }
  at::Tensor encoded;
  if (!with_neighbours.empty()) {
    const EncoderInput input = MakeEncoderInput(config, h, with_neighbours);
    encoded = EncodeNeighbours(weights.encoder, config, input);
    MakeMemories(weights, config, input, encoded, with_neighbours);
  }
  WriteTraces(pieces, completed, h, encoded);
  for (size_t i = 0; i < pieces.size(); ++i) {
    for (const Completed& chunk : completed[i]) retrievals[i].memories.push_back(chunk.memory);
  }
  return retrievals;
}

std::vector<AttendingSpan> FindAttendingSpans(std::span<const DecoderPiece> pieces,
                                              std::span<const PieceRetrieval> retrievals) {
  std::vector<AttendingSpan> spans;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const SequenceState& state = *pieces[i].state;
    const ChunkGeometry& geometry = state.geometry;
    const int64_t known = geometry.CompleteChunks(state.position);  // chunks complete before the piece
    const int64_t end = state.position + pieces[i].rows;
    for (int64_t position = state.position; position < end && state.options.retrieval;) {
      const int64_t chunk = geometry.AttendedChunk(position);
      const int64_t next = std::min(end, geometry.End(chunk + 1) - 1);
      ChunkMemoryPtr memory;
      if (chunk >= 0) memory = chunk < known ? state.memory : retrievals[i].memories[chunk - known];
      if (memory != nullptr) {
        spans.push_back({.first_row = pieces[i].first_row + position - state.position,
                         .rows = next - position,
                         .first_place = geometry.Place(position, chunk),
                         .memory = std::move(memory),
                         .gate = state.options.gate,
                         .want_mass = pieces[i].want_mass});
      }
      position = next;
    }
  }
  return spans;
}

}  // namespace retro
