#include "trainer/chunk_vectors.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <utility>
#include <vector>

#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "trainer/append_file.h"
#include "trainer/data_set_writer.h"
#include "trainer/json_header.h"
#include "trainer/parallel.h"

namespace retro {
namespace {

constexpr char kFormat[] = "retro-chunk-vectors";
constexpr int64_t kFormatVersion = 1;
constexpr uint64_t kBlockChunks = 8192;  // embedded between two syncs
constexpr int64_t kElementBytes = 2;

absl::StatusOr<VectorHeader> ReadVectorHeader(const std::string& folder) {
  const std::string path = folder + "/" + kVectorHeaderName;
  RETRO_ASSIGN_OR_RETURN(const HeaderJson json, ReadHeader(path, kFormat, kFormatVersion));
  VectorHeader header;
  HeaderFields fields(path, json);
  fields.Read("dimension", header.dimension);
  fields.Read("chunks", header.chunks);
  fields.Read("data_fingerprint", header.data_fingerprint);
  fields.Read("embedder_fingerprint", header.embedder_fingerprint);
  RETRO_RETURN_IF_ERROR(fields.status());
  return header;
}

bool Same(const VectorHeader& a, const VectorHeader& b) {
  return a.dimension == b.dimension && a.chunks == b.chunks && a.data_fingerprint == b.data_fingerprint &&
         a.embedder_fingerprint == b.embedder_fingerprint;
}

// The vectors of the chunks [first, end), fp16, in order.
absl::StatusOr<std::string> EmbedBlock(const DataSet& data, const Tokenizer& tokenizer, Embedder& embedder,
                                       const EmbedChunksOptions& options, uint64_t first, uint64_t end) {
  std::vector<TokenSequence> sequences(end - first);
  ParallelFor(sequences.size(), options.threads, [&](size_t i) {
    sequences[i] = embedder.Encode(tokenizer.Decode(data.ChunkTokens(first + i)), TextKind::kPassage);
  });
  // By length, so that a batch has little padding.
  std::vector<size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return sequences[i].size(); });
  const int64_t dimension = embedder.info().dimension;
  std::vector<float> vectors(sequences.size() * dimension);
  for (size_t begin = 0; begin < order.size(); begin += options.batch_texts) {
    const size_t count = std::min(options.batch_texts, order.size() - begin);
    std::vector<TokenSequence> batch;
    batch.reserve(count);
    for (size_t i = 0; i < count; ++i) batch.push_back(std::move(sequences[order[begin + i]]));
    RETRO_ASSIGN_OR_RETURN(const std::vector<float> embedded, embedder.Embed(batch));
    for (size_t i = 0; i < count; ++i) {
      std::copy_n(embedded.begin() + static_cast<int64_t>(i) * dimension, dimension,
                  vectors.begin() + static_cast<int64_t>(order[begin + i]) * dimension);
    }
  }
  const at::Tensor half =
      at::from_blob(vectors.data(), {static_cast<int64_t>(vectors.size())}, at::kFloat).to(at::kHalf);
  return std::string(static_cast<const char*>(half.const_data_ptr()), half.nbytes());
}

// Chunks already done of an earlier run, whole blocks only and without the last one, whose bytes may not all have
// reached the disk.
absl::StatusOr<uint64_t> ChunksDone(const std::string& partial, const VectorHeader& wanted) {
  const absl::StatusOr<VectorHeader> begun = ReadVectorHeader(partial);
  if (begun.ok() && Same(*begun, wanted)) {
    std::error_code error;
    const uint64_t bytes = std::filesystem::file_size(partial + "/" + kVectorsName, error);
    const uint64_t blocks = error ? 0 : bytes / (kBlockChunks * wanted.dimension * kElementBytes);
    return blocks > 0 ? (blocks - 1) * kBlockChunks : 0;
  }
  RETRO_RETURN_IF_ERROR(WriteVectorHeader(partial, wanted));
  return 0;
}

}  // namespace

absl::Status WriteVectorHeader(const std::string& folder, const VectorHeader& header) {
  return WriteHeader(folder + "/" + kVectorHeaderName, {{"format", kFormat},
                                                        {"format_version", kFormatVersion},
                                                        {"dimension", header.dimension},
                                                        {"chunks", header.chunks},
                                                        {"data_fingerprint", header.data_fingerprint},
                                                        {"embedder_fingerprint", header.embedder_fingerprint}});
}

absl::StatusOr<ChunkVectors> ChunkVectors::Open(const DataSet& data) {
  const std::string path = data.folder() + "/" + kVectorsName;
  RETRO_ASSIGN_OR_RETURN(VectorHeader header, ReadVectorHeader(data.folder()));
  if (header.data_fingerprint != data.header().fingerprint || header.chunks != data.header().chunks) {
    return absl::FailedPreconditionError(StrCat(path, ": the vectors are those of another token file: remove them"));
  }
  RETRO_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  RETRO_RETURN_IF_ERROR(CheckFileSize(path, file.bytes().size(), header.chunks * header.dimension * kElementBytes));
  return ChunkVectors{std::move(header), std::move(file)};
}

absl::Status EmbedChunks(const DataSet& data, const Tokenizer& tokenizer, Embedder& embedder,
                         const EmbedChunksOptions& options, const Report& report) {
  if (HexEncode(tokenizer.fingerprint()) != data.header().tokenizer_fingerprint) {
    return absl::FailedPreconditionError(StrCat(data.folder(), " was made with another tokenizer"));
  }
  const VectorHeader wanted = {.dimension = embedder.info().dimension,
                               .chunks = data.header().chunks,
                               .data_fingerprint = data.header().fingerprint,
                               .embedder_fingerprint = options.fingerprint.empty()
                                                           ? HexEncode(embedder.info().fingerprint)
                                                           : options.fingerprint};
  const absl::StatusOr<VectorHeader> there = ReadVectorHeader(data.folder());
  if (there.ok() && Same(*there, wanted)) return absl::OkStatus();
  const std::string partial = StrCat(data.folder(), "/", kPartialFolder);
  RETRO_RETURN_IF_ERROR(MakeFolder(partial));
  RETRO_ASSIGN_OR_RETURN(uint64_t done, ChunksDone(partial, wanted));
  RETRO_ASSIGN_OR_RETURN(AppendFile file,
                         AppendFile::Open(partial + "/" + kVectorsName, done * wanted.dimension * kElementBytes));
  while (done < wanted.chunks) {
    const uint64_t end = std::min(done + kBlockChunks, wanted.chunks);
    RETRO_ASSIGN_OR_RETURN(const std::string bytes, EmbedBlock(data, tokenizer, embedder, options, done, end));
    RETRO_RETURN_IF_ERROR(file.Append(bytes));
    RETRO_RETURN_IF_ERROR(file.Sync());
    done = end;
    report(StrCat("embedded ", done, " of ", wanted.chunks, " chunks"));
  }
  RETRO_RETURN_IF_ERROR(PublishFile(data.folder(), kVectorsName));
  return PublishFile(data.folder(), kVectorHeaderName);
}

}  // namespace retro
