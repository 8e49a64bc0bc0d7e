// The retrieval side of one decoder pass: from the neighbours that came with the pieces to the spans of rows that
// attend to them.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "generator_service/model/cca.h"
#include "generator_service/model/decoder.h"

namespace retro {

// What one piece leaves behind for the next one.
struct PieceRetrieval {
  std::vector<ChunkMemoryPtr> memories;  // of the chunks that the piece completes, in order
  at::Tensor conditioning;               // of the chunk that is running at its end; undefined: none
};

// ENCODER for all chunks that the pieces complete, in one batch. h: [N, d] after ATTN of the first CCA layer.
std::vector<PieceRetrieval> EncodeCompletedChunks(const ModelWeights& weights, const ModelConfig& config,
                                                  const at::Tensor& h, std::span<const DecoderPiece> pieces);

// The rows that attend to a chunk with neighbours, rising.
std::vector<AttendingSpan> FindAttendingSpans(const ModelWeights& weights, const ModelConfig& config,
                                              std::span<const DecoderPiece> pieces,
                                              std::span<const PieceRetrieval> retrievals);

}  // namespace retro
