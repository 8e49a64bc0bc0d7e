// Second part of `retro-train prepare`: the vector of every chunk of a data set, by the embedder that will serve.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/file.h"
#include "common/tokenizer/tokenizer.h"
#include "retriever_service/embed/embedder.h"
#include "trainer/data_set.h"
#include "trainer/token_files.h"

namespace retro {

inline constexpr char kVectorHeaderName[] = "vectors.json";
inline constexpr char kVectorsName[] = "vectors.bin";

// vectors.json.
struct VectorHeader {
  int64_t dimension = 0;
  uint64_t chunks = 0;
  std::string data_fingerprint;
  std::string embedder_fingerprint;
};

absl::Status WriteVectorHeader(const std::string& folder, const VectorHeader& header);

// Mapped fp16 vectors, [chunks, dimension].
struct ChunkVectors {
  VectorHeader header;
  MappedFile file;

  // INVALID_ARGUMENT or FAILED_PRECONDITION naming the file: truncated, or another data set's.
  static absl::StatusOr<ChunkVectors> Open(const DataSet& data);
};

struct EmbedChunksOptions {
  int threads = 1;          // that cut texts into wordpieces
  size_t batch_texts = 32;  // embedded at once
  // Recorded in place of the embedder's own, where its file is a copy in another number format; hex, empty: its own.
  std::string fingerprint;
};

// Goes on where it was killed (the last block is done again), and does nothing if the vectors are there.
absl::Status EmbedChunks(const DataSet& data, const Tokenizer& tokenizer, Embedder& embedder,
                         const EmbedChunksOptions& options, const Report& report);

}  // namespace retro
