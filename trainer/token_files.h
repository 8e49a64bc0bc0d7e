// First part of `retro-train prepare`: documents to the token file and chunk table of a data set.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/data_set.h"

namespace retro {

struct TokenFileOptions {
  std::vector<std::string> documents;  // .jsonl, .jsonl.gz, .jsonl.zst
  std::string tokenizer;
  std::string out;
  int64_t chunk_length = 64;
  std::string leave_out_near_duplicates_of;  // a .jsonl file; empty: none
  double near_duplicate_share = 0.2;         // a document with at least this share of its shingles there is left out
  int threads = 1;
};

// Told from time to time what is done, for a progress line.
using Report = std::function<void(const std::string& line)>;

// Goes on after the last whole file of documents if it was killed, and does nothing if the folder is complete.
// FAILED_PRECONDITION if the folder was begun with other options.
absl::Status WriteTokenFiles(const TokenFileOptions& options, const Report& report);

}  // namespace retro
