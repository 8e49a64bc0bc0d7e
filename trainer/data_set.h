// The token file and chunk table that a model is trained on: a folder written by `retro-train prepare` and mapped as it
// lies. Every file is little-endian and readable with numpy.memmap; docs/training_data.md describes the bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/file.h"
#include "common/tokenizer/tokenizer.h"

namespace retro {

inline constexpr char kDataHeaderName[] = "data.json";
inline constexpr char kTokensName[] = "tokens.bin";
inline constexpr char kDocumentsName[] = "documents.bin";
inline constexpr char kChunksName[] = "chunks.bin";
inline constexpr char kDocumentListName[] = "documents.jsonl";

// data.json.
struct DataHeader {
  int64_t chunk_length = 64;  // m
  int64_t vocabulary = 0;
  TokenId pad_id = 0;
  TokenId eos_id = 0;
  uint64_t documents = 0;
  uint64_t chunks = 0;
  uint64_t tokens = 0;                // eos of each document included
  std::string tokenizer_fingerprint;  // hex
  std::string fingerprint;            // hex: SHA-256 over the tokens and the documents' places

  size_t token_bytes() const { return vocabulary <= (1 << 16) ? 2 : 4; }
};

absl::Status WriteDataHeader(const std::string& folder, const DataHeader& header);
// NOT_FOUND if the folder holds none; INVALID_ARGUMENT naming file and key.
absl::StatusOr<DataHeader> ReadDataHeader(const std::string& folder);

// A row of documents.bin; one row more than there are documents holds the totals.
struct DocumentRow {
  uint64_t first_token;
  uint64_t first_chunk;
};

// A row of chunks.bin. Chunks tile a document from its first token; the last one may be shorter than m. Others are by
// up to three tokens if a store cut them, which never cuts inside a character. The eos that ends a document belongs to
// no chunk.
struct ChunkRow {
  uint64_t first_token;
  uint32_t document;
  uint32_t tokens;
};

static_assert(sizeof(DocumentRow) == 16 && sizeof(ChunkRow) == 16);

// Immutable; any thread.
class DataSet {
 public:
  // INVALID_ARGUMENT naming the file that is truncated, too long or does not fit the others.
  static absl::StatusOr<DataSet> Open(const std::string& folder);

  const std::string& folder() const { return folder_; }
  const DataHeader& header() const { return header_; }
  std::span<const DocumentRow> documents() const { return {documents_, header_.documents}; }
  std::span<const ChunkRow> chunks() const { return {chunks_, header_.chunks}; }
  // The tokens [first, first + count).
  void CopyTokens(uint64_t first, uint64_t count, TokenId* out) const;
  std::vector<TokenId> ChunkTokens(uint64_t chunk) const;
  // The chunks [first, end) of a document.
  uint64_t first_chunk(uint64_t document) const { return documents_[document].first_chunk; }
  uint64_t end_chunk(uint64_t document) const { return documents_[document + 1].first_chunk; }
  // Whether all chunks of a document but the last have m tokens.
  bool IsEvenlyCut(uint64_t document) const;
  // Tokens of a document, its eos left out.
  uint64_t text_tokens(uint64_t document) const {
    return documents_[document + 1].first_token - documents_[document].first_token - 1;
  }

 private:
  DataSet(std::string folder, DataHeader header, MappedFile tokens, MappedFile documents, MappedFile chunks);
  absl::Status Check() const;
  bool Follows(uint64_t chunk) const;

  std::string folder_;
  DataHeader header_;
  MappedFile tokens_file_, documents_file_, chunks_file_;
  const DocumentRow* documents_;
  const ChunkRow* chunks_;
};

// From documents.jsonl, one a document. INVALID_ARGUMENT if it is not whole.
absl::StatusOr<std::vector<std::string>> DocumentIds(const DataSet& data);
// Likewise: what a document is a version of, "family", empty where it names none.
absl::StatusOr<std::vector<std::string>> DocumentFamilies(const DataSet& data);

// For each document of `data` those of `database` that are the same: that of its number if they are one data set, else
// all that have its id, if it has one.
absl::StatusOr<std::vector<std::vector<uint64_t>>> SameDocuments(const DataSet& data, const DataSet& database);

// SHA-256 (hex) over the two files that say what the text is.
absl::StatusOr<std::string> DataFingerprint(const std::string& folder);

// INVALID_ARGUMENT naming `path`, unless the file has `expected` bytes.
absl::Status CheckFileSize(const std::string& path, uint64_t size, uint64_t expected);

}  // namespace retro
