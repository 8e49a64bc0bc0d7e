// Documents from .jsonl files, one JSON object a line: "text", and if there "id", "title", "source", "family"; other
// members are passed over.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/text/line_reader.h"

namespace retro {

struct TrainingDocument {
  std::string id;
  std::string title;
  std::string source;
  std::string family;  // what it is a version of
  std::string text;
};

// Not thread-safe.
class DocumentLines {
 public:
  // Also .jsonl.gz and .jsonl.zst.
  static absl::StatusOr<DocumentLines> Open(const std::string& path);

  // The next document; false at the end. INVALID_ARGUMENT naming file and line for one that is malformed.
  absl::StatusOr<bool> Next(TrainingDocument& document);

 private:
  DocumentLines(std::string path, LineReader reader) : path_(std::move(path)), reader_(std::move(reader)) {}

  std::string path_;
  LineReader reader_;
};

}  // namespace retro
