// What an interrupted `retro ingest` has done, so that the next run goes on there.
//
// A file of JSON lines, appended to: {"target": "...", "path": "...", "size": 12, "modified_ns": 34, "done": 56} says
// that the first 56 ordinals (parts of a text, lines of JSONL) of that file, with that length and time of change, are
// stored in that target or were reported as unreadable; the last line about a file counts. A file that changed starts
// afresh. The target names the store, the collection and the options that decide what an ordinal is.
#pragma once

#include <chrono>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/file_walk.h"

namespace retro::cli {

// Not thread-safe.
class IngestJournal {
 public:
  // Reads what is there and goes on behind it. INVALID_ARGUMENT if the file is something else; a cut last line is what
  // a killed run leaves, and is passed over.
  static absl::StatusOr<std::unique_ptr<IngestJournal>> Open(const std::string& path, const std::string& target);

  // Ordinals of `file` that need not be sent again.
  uint64_t DoneOf(const InputFile& file) const;
  // The first `done` ordinals of `file` are done with. Written at once for another file than the last time, else once a
  // second: what is lost by a crash is sent again, and unchanged.
  void Record(const InputFile& file, uint64_t done);
  // Writes what is not yet written. RESOURCE_EXHAUSTED or INTERNAL if writing failed at any time.
  absl::Status Flush();

 private:
  using Key = std::tuple<std::string, uint64_t, int64_t>;  // path, size, modified_ns

  IngestJournal(std::string path, std::string target) : path_(std::move(path)), target_(std::move(target)) {}
  absl::Status Load();
  void Write();

  const std::string path_;
  const std::string target_;
  std::map<Key, uint64_t> done_;
  std::ofstream file_;
  Key unwritten_;
  bool has_unwritten_ = false;
  std::chrono::steady_clock::time_point last_write_;
};

}  // namespace retro::cli
