// Documents out of files, as `retro ingest` reads them.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "builder/document_source.h"
#include "cli/document_reader.h"
#include "cli/file_walk.h"
#include "google/protobuf/timestamp.pb.h"

namespace retro {

struct FileDocumentsOptions {
  std::string collection;
  std::vector<cli::InputFile> files;
  cli::ReaderOptions reader;
  google::protobuf::Timestamp write_time;                // of all documents
  std::function<bool(const std::string& id)> is_wanted;  // by the shard that is built
};

class FileDocuments final : public DocumentSource {
 public:
  explicit FileDocuments(FileDocumentsOptions options) : options_(std::move(options)) {}

  void GoOnAt(const SourcePlace& place) override;
  absl::StatusOr<std::optional<DocumentGroup>> Next() override;
  double share_read() const override;

 private:
  // What is never divided: the documents of one place of a file.
  struct Unit {
    std::vector<shardpb::DocumentChange> changes;
    SourcePlace next;
    size_t bytes = 0;
    uint64_t left_out = 0;
  };
  std::optional<Unit> NextUnit();
  void OpenFile(uint64_t ordinal);
  void Take(cli::Reading reading, Unit& unit) const;

  const FileDocumentsOptions options_;
  uint64_t file_ = 0;
  std::unique_ptr<cli::DocumentReader> reader_;  // of the current file
  std::optional<Unit> unit_;                     // read, and of the next group
};

}  // namespace retro
