// The k nearest neighbours of every chunk of a data set, found before training (paper section 4.1). Chunks are numbered
// through all databases in their order: first those of the first one. docs/training_data.md describes the bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/file.h"
#include "trainer/data_set.h"

namespace retro {

inline constexpr char kNeighbourHeaderName[] = "neighbours.json";
inline constexpr char kNeighboursName[] = "neighbours.bin";
inline constexpr uint32_t kNoNeighbour = 0xffffffff;

struct DatabaseRef {
  std::string path;         // as given, or relative to the folder of the header
  std::string fingerprint;  // of its data set
  uint64_t chunks = 0;
};

// neighbours.json.
struct NeighbourHeader {
  int64_t k = 0;
  uint64_t chunks = 0;
  std::string data_fingerprint;
  std::string tokenizer_fingerprint;
  std::string embedder_fingerprint;
  std::vector<DatabaseRef> databases;
};

absl::Status WriteNeighbourHeader(const std::string& folder, const NeighbourHeader& header);
absl::StatusOr<NeighbourHeader> ReadNeighbourHeader(const std::string& folder);

// Immutable; any thread.
class NeighbourTable {
 public:
  // The table of `folder` for the chunks of `data`. INVALID_ARGUMENT or FAILED_PRECONDITION naming the file if it was
  // made for another tokenizer, token file or database, is truncated, or names a chunk that is not there.
  static absl::StatusOr<NeighbourTable> Open(const std::string& folder, const DataSet& data);

  const NeighbourHeader& header() const { return header_; }
  // k numbers, nearest first, kNoNeighbour after the last.
  std::span<const uint32_t> Of(uint64_t chunk) const {
    return {rows_ + chunk * header_.k, static_cast<size_t>(header_.k)};
  }
  // As CopyNeighbourTokens, by number.
  void CopyTokens(uint32_t neighbour, TokenId pad_id, std::span<TokenId> out) const;
  // SHA-256 (hex) of the numbers.
  std::string Digest() const;
  // Chunks of all databases.
  uint64_t numbers() const { return first_.back(); }
  // What a neighbour is: its database's place in the header, and its number there.
  std::pair<size_t, uint64_t> Locate(uint32_t neighbour) const;
  // Whether it is a chunk of a document of the data set, or of the same one in a database (SameDocuments).
  bool IsOfDocument(uint32_t neighbour, uint64_t document) const;

 private:
  NeighbourTable(NeighbourHeader header, MappedFile file, std::vector<DataSet> databases);
  absl::Status CheckRow(const DataSet& data, uint64_t chunk) const;

  NeighbourHeader header_;
  MappedFile file_;
  std::vector<DataSet> databases_;
  std::vector<std::vector<std::vector<uint64_t>>> same_;  // [database][document]: see SameDocuments
  std::vector<uint64_t> first_;                           // number of each database's first chunk, and the total
  const uint32_t* rows_;
};

// A chunk and its continuation, each padded on its right to half of `out`.
void CopyNeighbourTokens(const DataSet& database, uint64_t chunk, TokenId pad_id, std::span<TokenId> out);

// Databases by their references; FAILED_PRECONDITION where one is another than it was.
absl::StatusOr<std::vector<DataSet>> OpenDatabases(const std::string& folder, const std::vector<DatabaseRef>& refs);

}  // namespace retro
