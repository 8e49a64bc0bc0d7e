// Writes the token file and chunk table of a data set, document after document. What is not whole yet lies in
// `partial/`, from where a killed writer goes on at its last Commit.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/append_file.h"
#include "trainer/data_set.h"

namespace retro {

// Where a folder's files lie until they are whole.
inline constexpr char kPartialFolder[] = "partial";

// Makes the folder and its parents.
absl::Status MakeFolder(const std::string& folder);
// Moves a file from the partial folder to its place.
absl::Status PublishFile(const std::string& folder, const std::string& name);

// What a tokenizer says of a data set. INVALID_ARGUMENT, naming `path`, if its vocabulary has no eos or pad.
absl::StatusOr<DataHeader> HeaderOf(const Tokenizer& tokenizer, const std::string& path, int64_t chunk_length);

// A line of documents.jsonl.
struct DocumentLine {
  std::string id;
  std::string title;
  std::string source;
  std::string family;  // what it is a version of; empty: of nothing
};

// How far a folder is.
struct DataSetProgress {
  std::string options;   // hash of what must not change between two runs
  uint64_t sources = 0;  // the caller's: what is whole of what it reads
  uint64_t documents = 0;
  uint64_t chunks = 0;
  uint64_t tokens = 0;
  uint64_t list_bytes = 0;
  uint64_t left_out = 0;                      // the caller's
  std::string place;                          // the caller's: where within a source it goes on
  std::map<std::string, std::string> inputs;  // the caller's: what its files were when they were first read
};

// Not thread-safe.
class DataSetWriter {
 public:
  // `header`: what is known of the tokens before they are counted. `options` stands for all that decides what is
  // written. FAILED_PRECONDITION if the folder was begun with others, or holds a data set of others.
  static absl::StatusOr<DataSetWriter> Open(const std::string& folder, const DataHeader& header,
                                            const std::string& options);

  // An earlier run published the folder: there is nothing to do.
  bool complete() const { return complete_; }
  // As of the last Commit, and what was added since. `sources` and `left_out` are the caller's to change.
  DataSetProgress& progress() { return progress_; }

  // A document's tokens without eos, and how many of them each chunk has, at least one chunk.
  absl::Status Add(const DocumentLine& line, std::vector<TokenId> tokens, std::span<const uint32_t> chunks);
  // Notes what was added, so that a killed writer goes on behind it.
  absl::Status Commit();
  // Everything was added. INVALID_ARGUMENT if that is nothing.
  absl::Status Publish();

 private:
  DataSetWriter(std::string folder, DataHeader header) : folder_(std::move(folder)), header_(std::move(header)) {}
  std::string Partial(const std::string& name) const;
  absl::Status Resume(const std::string& options);
  absl::Status OpenFiles();
  absl::Status AppendTokens(const std::vector<TokenId>& ids);

  std::string folder_;
  DataHeader header_;
  DataSetProgress progress_;
  bool complete_ = false;
  std::optional<AppendFile> tokens_, documents_, chunks_, list_;
};

}  // namespace retro
