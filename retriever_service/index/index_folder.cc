#include "retriever_service/index/index_folder.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr uint32_t kIndexLayoutVersion = 2;
constexpr size_t kAddRows = 16'384;              // between two looks at whether to stop
constexpr size_t kPieceBytes = size_t{1} << 20;  // written at once

absl::StatusOr<shardpb::IndexFile> Seal(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const MappedFile written, MappedFile::Open(path));
  shardpb::IndexFile file;
  file.set_bytes(written.bytes().size());
  file.set_checksum(Checksum(written.bytes()));
  return file;
}

absl::StatusOr<shardpb::IndexFile> WriteIndexFile(const std::string& path, std::span<const std::string_view> pieces) {
  RETRO_RETURN_IF_ERROR(WriteFileAtomically(path, pieces));
  return Seal(path);
}

// No more of it is in memory than a piece.
absl::StatusOr<shardpb::IndexFile> WriteLists(const std::string& path, QuantisedLists& lists) {
  RETRO_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  std::string piece;
  RETRO_RETURN_IF_ERROR(lists.Write([&](std::string_view bytes) -> absl::Status {
    piece += bytes;
    if (piece.size() < kPieceBytes) return absl::OkStatus();
    return file.Append(std::exchange(piece, {}));
  }));
  RETRO_RETURN_IF_ERROR(file.Append(piece));
  RETRO_RETURN_IF_ERROR(file.Commit());
  return Seal(path);
}

// The rows of a segment's content, from the first to the last.
class Rows {
 public:
  Rows(const std::vector<SegmentContent>& content, int dimension) : content_(content), bytes_(dimension * kHalfBytes) {}

  // Up to `count` of the next rows, `stride` apart.
  std::vector<std::string_view> Next(uint64_t count, uint64_t stride) {
    std::vector<std::string_view> rows;
    rows.reserve(count);
    for (uint64_t i = 0; i < count && document_ < content_.size(); ++i) {
      rows.push_back(content_[document_].vectors.substr(row_ * bytes_, bytes_));
      Skip(stride);
    }
    return rows;
  }

 private:
  void Skip(uint64_t rows) {
    for (row_ += rows; document_ < content_.size();) {
      const uint64_t in_document = content_[document_].vectors.size() / bytes_;
      if (row_ < in_document) return;
      row_ -= in_document;
      ++document_;
    }
  }

  const std::vector<SegmentContent>& content_;
  const size_t bytes_;
  size_t document_ = 0;
  uint64_t row_ = 0;  // in the document
};

}  // namespace

IndexFolder::IndexFolder(std::string path, IndexIdentity identity)
    : path_(std::move(path)), identity_(std::move(identity)) {
  manifest_.set_layout_version(kIndexLayoutVersion);
  manifest_.set_store_id(identity_.store_id);
  manifest_.set_collection_id(identity_.collection_id);
  manifest_.set_dimension(static_cast<uint32_t>(identity_.dimension));
  manifest_.set_next_segment(1);
}

std::string IndexFolder::ManifestPath() const { return path_ + "/manifest"; }

// ---------------------------------------------------------------- the manifest: see WithChecksum

absl::StatusOr<shardpb::IndexManifest> IndexFolder::ReadManifest() const {
  RETRO_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(ManifestPath()));
  shardpb::IndexManifest manifest;
  const auto message = ContentOf(bytes);
  if (!message.has_value() || !manifest.ParseFromArray(message->data(), static_cast<int>(message->size()))) {
    return absl::DataLossError("the manifest is damaged");
  }
  if (manifest.layout_version() != kIndexLayoutVersion) {
    return absl::DataLossError(StrCat("its layout version is ", manifest.layout_version()));
  }
  if (manifest.store_id() != identity_.store_id || manifest.collection_id() != identity_.collection_id ||
      manifest.dimension() != static_cast<uint32_t>(identity_.dimension)) {
    return absl::DataLossError("it belongs to another store");
  }
  return manifest;
}

absl::Status IndexFolder::WriteManifest() const {
  return WriteFileAtomically(ManifestPath(), WithChecksum(manifest_.SerializeAsString()));
}

// ---------------------------------------------------------------- opening

std::vector<std::shared_ptr<SealedSegment>> IndexFolder::Open(const shardpb::Position& last) {
  std::vector<std::shared_ptr<SealedSegment>> segments;
  const absl::StatusOr<shardpb::IndexManifest> manifest = ReadManifest();
  if (manifest.ok()) {
    manifest_.set_next_segment(manifest->next_segment());
    for (const shardpb::IndexSegment& info : manifest->segments()) {
      absl::Status status;
      if (IsBefore(last, info.position())) status = absl::DataLossError("it is newer than the store");
      if (info.kind() != ChooseKind(identity_.kind, identity_.dimension, info.rows())) {
        status = absl::DataLossError(StrCat("it is of kind \"", info.kind(), "\""));
      }
      if (status.ok()) {
        auto segment = SealedSegment::Open(path_, info, identity_.dimension);
        status = segment.status();
        if (segment.ok()) segments.push_back(*std::move(segment));
      }
      if (status.ok()) {
        *manifest_.add_segments() = info;
      } else {
        spdlog::warn("segment {} in {} is made again: {}", info.number(), path_, MessageOf(status));
      }
    }
  } else if (!absl::IsNotFound(manifest.status())) {
    spdlog::warn("the index in {} is made again: {}", path_, MessageOf(manifest.status()));
  }
  RemoveOtherFiles();
  return segments;
}

// What no manifest names: remains of a process that died, and of segments that were given up.
void IndexFolder::RemoveOtherFiles() const {
  absl::flat_hash_set<std::string> known = {ManifestPath()};
  for (const shardpb::IndexSegment& info : manifest_.segments()) {
    const SegmentPaths paths = PathsOfSegment(path_, info.number());
    known.insert({paths.vectors, paths.documents, paths.lists});
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path_, error)) {
    std::error_code remove_error;
    if (!known.contains(entry.path().string())) std::filesystem::remove(entry.path(), remove_error);
    if (remove_error) spdlog::warn("{} cannot be removed: {}", entry.path().string(), remove_error.message());
  }
}

// ---------------------------------------------------------------- writing

absl::StatusOr<std::unique_ptr<QuantisedLists>> IndexFolder::BuildLists(const std::string& kind,
                                                                        const std::vector<SegmentContent>& content,
                                                                        uint64_t rows, int threads,
                                                                        const std::atomic<bool>& stop) const {
  const uint64_t sample_rows = SampleRows(rows, kind);
  const auto sample = Rows(content, identity_.dimension).Next(sample_rows, rows / sample_rows);
  RETRO_ASSIGN_OR_RETURN(auto lists, QuantisedLists::Train(kind, identity_.dimension, sample, threads, stop));
  Rows all(content, identity_.dimension);
  for (auto some = all.Next(kAddRows, 1); !some.empty(); some = all.Next(kAddRows, 1)) {
    if (stop) return absl::CancelledError("building was given up");
    RETRO_RETURN_IF_ERROR(lists->Add(some, threads));
  }
  return lists;
}

absl::StatusOr<std::shared_ptr<SealedSegment>> IndexFolder::Write(const std::vector<SegmentContent>& content,
                                                                  const shardpb::Position& position, int threads,
                                                                  const std::atomic<bool>& stop) {
  auto written = WriteFiles(content, position, threads, stop);
  if (!written.ok()) RemoveOtherFiles();
  return written;
}

absl::StatusOr<std::shared_ptr<SealedSegment>> IndexFolder::WriteFiles(const std::vector<SegmentContent>& content,
                                                                       const shardpb::Position& position, int threads,
                                                                       const std::atomic<bool>& stop) {
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  if (error) return ErrnoStatus(error.value(), "cannot make", path_);
  shardpb::IndexSegment info;
  info.set_number(manifest_.next_segment());
  manifest_.set_next_segment(info.number() + 1);
  *info.mutable_position() = position;
  info.set_documents(content.size());
  std::vector<std::string_view> vectors;
  std::vector<SealedDocument> documents;
  vectors.reserve(content.size());
  documents.reserve(content.size());
  uint64_t rows = 0;
  for (const SegmentContent& document : content) {
    vectors.push_back(document.vectors);
    documents.push_back({document.first_chunk_id, rows});
    rows += document.vectors.size() / (identity_.dimension * kHalfBytes);
  }
  info.set_rows(rows);
  info.set_kind(ChooseKind(identity_.kind, identity_.dimension, rows));
  const SegmentPaths paths = PathsOfSegment(path_, info.number());
  RETRO_ASSIGN_OR_RETURN(*info.mutable_vectors_file(), WriteIndexFile(paths.vectors, vectors));
  const std::string_view table(reinterpret_cast<const char*>(documents.data()),
                               documents.size() * sizeof(SealedDocument));
  RETRO_ASSIGN_OR_RETURN(*info.mutable_documents_file(), WriteIndexFile(paths.documents, std::span(&table, 1)));
  if (!info.kind().empty()) {
    RETRO_ASSIGN_OR_RETURN(const auto lists, BuildLists(info.kind(), content, rows, threads, stop));
    RETRO_ASSIGN_OR_RETURN(*info.mutable_lists_file(), WriteLists(paths.lists, *lists));
  }
  return SealedSegment::Open(path_, info, identity_.dimension);
}

absl::Status IndexFolder::Commit(const std::vector<std::shared_ptr<SealedSegment>>& segments) {
  const shardpb::IndexManifest before = manifest_;
  manifest_.clear_segments();
  for (const auto& segment : segments) *manifest_.add_segments() = segment->info();
  if (absl::Status status = WriteManifest(); !status.ok()) {
    manifest_ = before;
    return status;
  }
  RemoveOtherFiles();
  return absl::OkStatus();
}

}  // namespace retro
