// Options of commands that read documents out of files.
#pragma once

#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "absl/status/status.h"
#include "cli/document_reader.h"
#include "cli/file_walk.h"

namespace retro::cli {

struct ReadingOptions {
  WalkOptions walk;
  ReaderOptions reader;  // as the options say once they are finished
  std::vector<std::string> metadata;
  size_t part_bytes = 0;  // 0: not given

  // After the parse. INVALID_ARGUMENT for metadata that is not understood.
  absl::Status Finish();
};

// `options` must outlive the parse.
void AddReadingOptions(CLI::App& command, ReadingOptions& options);

}  // namespace retro::cli
