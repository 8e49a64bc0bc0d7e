#include "retriever_service/index/index_folder.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/heap.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/index/index_file.h"
#include "retriever_service/store/folder.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr size_t kAddRows = 16'384;              // between two looks at whether to stop
constexpr size_t kPieceBytes = size_t{1} << 20;  // written at once

absl::StatusOr<shardpb::IndexFile> WriteIndexFile(const std::string& path, std::span<const std::string_view> pieces) {
  RETRO_RETURN_IF_ERROR(WriteFileAtomically(path, pieces));
  return DescribeFile(path);
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
  return DescribeFile(path);
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

IndexFolder::IndexFolder(std::string path, IndexIdentity identity, uint64_t seal_rows)
    : path_(std::move(path)), identity_(std::move(identity)) {
  const MutexLock lock(mutex_);
  manifest_.set_layout_version(kIndexLayoutVersion);
  manifest_.set_store_id(identity_.store_id);
  manifest_.set_collection_id(identity_.collection_id);
  manifest_.set_dimension(static_cast<uint32_t>(identity_.dimension));
  manifest_.set_seal_rows(seal_rows);
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
  if (manifest.seal_rows() != manifest_.seal_rows()) {
    return absl::DataLossError(StrCat("it was made with cells of ", manifest.seal_rows(), " chunks"));
  }
  return manifest;
}

absl::Status IndexFolder::WriteManifest(const shardpb::IndexManifest& manifest) const {
  return WriteFileAtomically(ManifestPath(), WithChecksum(manifest.SerializeAsString()));
}

// ---------------------------------------------------------------- opening

std::vector<std::shared_ptr<SealedSegment>> IndexFolder::Open(const shardpb::Position& last) {
  std::vector<std::shared_ptr<SealedSegment>> segments;
  const MutexLock lock(mutex_);
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
  for (const std::string& name : NamesIn(path_, error)) {
    std::error_code remove_error;
    const std::string path = StrCat(path_, "/", name);
    if (written_.contains(name.substr(0, name.find('.')))) continue;
    if (!known.contains(path)) std::filesystem::remove(path, remove_error);
    if (remove_error) spdlog::warn("{} cannot be removed: {}", path, remove_error.message());
  }
}

// ---------------------------------------------------------------- writing

absl::StatusOr<std::unique_ptr<QuantisedLists>> IndexFolder::BuildLists(const std::string& kind,
                                                                        const std::vector<SegmentContent>& content,
                                                                        uint64_t rows, int threads,
                                                                        const std::atomic<bool>& stop,
                                                                        BuildMemory& memory) const {
  std::unique_ptr<QuantisedLists> lists;
  {
    const uint64_t sample_rows = SampleRows(rows, kind);
    // Where each row of the sample lies, its list and distance, and twice the centroids.
    constexpr uint64_t kTrainingBytesARow = sizeof(std::string_view) + sizeof(int64_t) + sizeof(float);
    memory.Set(sample_rows * kTrainingBytesARow +
               uint64_t{2} * ListsOfKind(kind) * identity_.dimension * sizeof(float));
    const auto sample = Rows(content, identity_.dimension).Next(sample_rows, rows / sample_rows);
    RETRO_ASSIGN_OR_RETURN(lists, QuantisedLists::Train(kind, identity_.dimension, sample, threads, stop));
  }
  Rows all(content, identity_.dimension);
  for (auto some = all.Next(kAddRows, 1); !some.empty(); some = all.Next(kAddRows, 1)) {
    if (stop) return absl::CancelledError("building was given up");
    RETRO_RETURN_IF_ERROR(lists->Add(some, threads));
    memory.Set(lists->memory_bytes());
  }
  return lists;
}

absl::StatusOr<std::shared_ptr<SealedSegment>> IndexFolder::Write(const std::vector<SegmentContent>& content,
                                                                  const shardpb::IndexSegment& about, int threads,
                                                                  const std::atomic<bool>& stop,
                                                                  std::atomic<uint64_t>& building_bytes) {
  shardpb::IndexSegment info = about;
  {
    const MutexLock lock(mutex_);
    info.set_number(manifest_.next_segment());
    manifest_.set_next_segment(info.number() + 1);
    written_.insert(StrCat(info.number()));
  }
  auto written = WriteFiles(info, content, threads, stop, building_bytes);
  if (written.ok()) return written;
  const MutexLock lock(mutex_);
  written_.erase(StrCat(info.number()));
  RemoveOtherFiles();
  return written;
}

absl::StatusOr<std::shared_ptr<SealedSegment>> IndexFolder::WriteFiles(shardpb::IndexSegment info,
                                                                       const std::vector<SegmentContent>& content,
                                                                       int threads, const std::atomic<bool>& stop,
                                                                       std::atomic<uint64_t>& building_bytes) const {
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  if (error) return ErrnoStatus(error.value(), "cannot make", path_);
  const SegmentPaths paths = PathsOfSegment(path_, info.number());
  BuildMemory memory(building_bytes);
  {
    std::vector<std::string_view> vectors;
    std::vector<SealedDocument> documents;
    vectors.reserve(content.size());
    documents.reserve(content.size());
    memory.Set(content.size() * (sizeof(std::string_view) + sizeof(SealedDocument)));
    uint64_t rows = 0;
    for (const SegmentContent& each : content) {
      vectors.push_back(each.vectors);
      documents.push_back({each.document->first_chunk_id, rows});
      rows += each.document->chunk_count;
    }
    info.set_documents(content.size());
    info.set_rows(rows);
    RETRO_ASSIGN_OR_RETURN(*info.mutable_vectors_file(), WriteIndexFile(paths.vectors, vectors));
    const std::string_view table(reinterpret_cast<const char*>(documents.data()),
                                 documents.size() * sizeof(SealedDocument));
    RETRO_ASSIGN_OR_RETURN(*info.mutable_documents_file(), WriteIndexFile(paths.documents, std::span(&table, 1)));
  }
  info.set_kind(ChooseKind(identity_.kind, identity_.dimension, info.rows()));
  if (!info.kind().empty()) {
    RETRO_ASSIGN_OR_RETURN(const auto lists, BuildLists(info.kind(), content, info.rows(), threads, stop, memory));
    RETRO_ASSIGN_OR_RETURN(*info.mutable_lists_file(), WriteLists(paths.lists, *lists));
  }
  GiveFreedMemoryBack();  // the lists as they grew, before they are read as they lie
  return SealedSegment::Open(path_, info, identity_.dimension);
}

absl::Status IndexFolder::Commit(const SealedSegment* made,
                                 const std::vector<std::shared_ptr<SealedSegment>>& replaced) {
  const auto is_replaced = [&](uint64_t number) {
    return std::any_of(replaced.begin(), replaced.end(),
                       [&](const auto& segment) { return segment->info().number() == number; });
  };
  const MutexLock lock(mutex_);
  std::vector<shardpb::IndexSegment> segments;
  for (const shardpb::IndexSegment& info : manifest_.segments()) {
    if (!is_replaced(info.number())) segments.push_back(info);
  }
  if (made != nullptr) {
    segments.push_back(made->info());
    written_.erase(StrCat(made->info().number()));
  }
  std::sort(segments.begin(), segments.end(), [](const auto& a, const auto& b) { return a.number() < b.number(); });
  shardpb::IndexManifest manifest = manifest_;
  manifest.mutable_segments()->Assign(segments.begin(), segments.end());
  const absl::Status status = WriteManifest(manifest);
  if (status.ok()) manifest_ = std::move(manifest);
  RemoveOtherFiles();
  return status;
}

}  // namespace retro
