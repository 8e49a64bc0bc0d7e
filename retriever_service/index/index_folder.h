// The folder of one collection's sealed segments: which there are, as a manifest that is replaced as a whole and last,
// so that a process may die at any moment. FORMAT.md describes the bytes.
//
// Everything in it can be made again from the store, so what is missing, damaged, of another version or another store
// is dropped, not mourned. Threads: any, but for Open.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/sync.h"
#include "retriever_service/index/build_memory.h"
#include "retriever_service/index/sealed_segment.h"
#include "retriever_service/index/tuning.h"
#include "retro/shard/v1/index.pb.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// Older ones are made again.
inline constexpr uint32_t kIndexLayoutVersion = 3;

// What a folder must have been made for.
struct IndexIdentity {
  std::string store_id;  // 16 bytes
  uint32_t collection_id = 0;
  int dimension = 0;
  SegmentKind kind = SegmentKind::kPq4;
};

// A document that goes into a new segment.
struct SegmentContent {
  std::shared_ptr<const IndexedDocument> document;
  std::string_view vectors;  // half precision, [chunk_count, dimension]
  uint64_t source = 0;       // where it comes from, to who gathered it
};

class IndexFolder {
 public:
  // `seal_rows`: of a cell.
  IndexFolder(std::string path, IndexIdentity identity, uint64_t seal_rows);

  // Opens the whole segments of what is there and removes the rest. `last`: the store's newest change; a segment that
  // claims to be newer is of another history. Call it once, first.
  std::vector<std::shared_ptr<SealedSegment>> Open(const shardpb::Position& last) ABSL_LOCKS_EXCLUDED(mutex_);

  // Writes a segment, of which nobody knows yet, and opens it. Takes minutes for millions of rows; CANCELLED soon after
  // `stop` is set. `content` is in the order of chunk ids and not empty. `about`: its position and last cell.
  // `building_bytes`: as BuildMemory counts it.
  absl::StatusOr<std::shared_ptr<SealedSegment>> Write(const std::vector<SegmentContent>& content,
                                                       const shardpb::IndexSegment& about, int threads,
                                                       const std::atomic<bool>& stop,
                                                       std::atomic<uint64_t>& building_bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // From now on `made`, which Write gave, is among the folder's segments, and `replaced` are not. Their files are
  // removed; who has them mapped keeps them. Either may be nothing. If it fails, all is as before Write.
  absl::Status Commit(const SealedSegment* made, const std::vector<std::shared_ptr<SealedSegment>>& replaced)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  std::string ManifestPath() const;
  absl::StatusOr<shardpb::IndexManifest> ReadManifest() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WriteManifest(const shardpb::IndexManifest& manifest) const;
  void RemoveOtherFiles() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::shared_ptr<SealedSegment>> WriteFiles(shardpb::IndexSegment info,
                                                            const std::vector<SegmentContent>& content, int threads,
                                                            const std::atomic<bool>& stop,
                                                            std::atomic<uint64_t>& building_bytes) const;
  absl::StatusOr<std::unique_ptr<QuantisedLists>> BuildLists(const std::string& kind,
                                                             const std::vector<SegmentContent>& content, uint64_t rows,
                                                             int threads, const std::atomic<bool>& stop,
                                                             BuildMemory& memory) const;

  const std::string path_;
  const IndexIdentity identity_;
  Mutex mutex_;  // held while the manifest is written, not while a segment is
  shardpb::IndexManifest manifest_ ABSL_GUARDED_BY(mutex_);           // as on disk, but for next_segment
  absl::flat_hash_set<std::string> written_ ABSL_GUARDED_BY(mutex_);  // numbers of segments under construction
};

}  // namespace retro
