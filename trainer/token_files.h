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
  double commit_seconds = 5;  // so much work, at most, is lost by a kill
};

// Told from time to time what is done, for a progress line.
using Report = std::function<void(const std::string& line)>;

// Goes on where it last committed if it was killed, and does nothing if the folder is complete. FAILED_PRECONDITION if
// the folder was begun with other options, or what was read of a file has changed since: its documents, or, once it is
// whole, its size or time.
absl::Status WriteTokenFiles(const TokenFileOptions& options, const Report& report);

}  // namespace retro
