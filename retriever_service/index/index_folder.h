// The folder of one collection's sealed segments: which there are, as a manifest that is replaced as a whole and last,
// so that a process may die at any moment. FORMAT.md describes the bytes.
//
// Everything in it can be made again from the store, so what is missing, damaged, of another version or another store
// is dropped, not mourned. Threads: one at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "retriever_service/index/sealed_segment.h"
#include "retriever_service/index/tuning.h"
#include "retro/shard/v1/index.pb.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// What a folder must have been made for.
struct IndexIdentity {
  std::string store_id;  // 16 bytes
  uint32_t collection_id = 0;
  int dimension = 0;
  SegmentKind kind = SegmentKind::kPq4;
};

// A document that goes into a new segment.
struct SegmentContent {
  uint64_t first_chunk_id;
  std::string_view vectors;  // half precision, [chunk_count, dimension]
};

class IndexFolder {
 public:
  IndexFolder(std::string path, IndexIdentity identity);

  // Opens the whole segments of what is there and removes the rest. `last`: the store's newest change; a segment that
  // claims to be newer is of another history. Call it once, first.
  std::vector<std::shared_ptr<SealedSegment>> Open(const shardpb::Position& last);

  // Writes a segment, of which nobody knows yet, and opens it. Takes minutes for millions of rows; CANCELLED soon after
  // `stop` is set. `content` is in the order of chunk ids and not empty.
  absl::StatusOr<std::shared_ptr<SealedSegment>> Write(const std::vector<SegmentContent>& content,
                                                       const shardpb::Position& position, int threads,
                                                       const std::atomic<bool>& stop);
  // From now on the folder's segments are these. Files of others are removed; who has them mapped keeps them.
  absl::Status Commit(const std::vector<std::shared_ptr<SealedSegment>>& segments);

 private:
  std::string ManifestPath() const;
  absl::StatusOr<shardpb::IndexManifest> ReadManifest() const;
  absl::Status WriteManifest() const;
  void RemoveOtherFiles() const;
  absl::StatusOr<std::shared_ptr<SealedSegment>> WriteFiles(const std::vector<SegmentContent>& content,
                                                            const shardpb::Position& position, int threads,
                                                            const std::atomic<bool>& stop);
  absl::StatusOr<std::unique_ptr<QuantisedLists>> BuildLists(const std::string& kind,
                                                             const std::vector<SegmentContent>& content, uint64_t rows,
                                                             int threads, const std::atomic<bool>& stop) const;

  const std::string path_;
  const IndexIdentity identity_;
  shardpb::IndexManifest manifest_;  // as on disk, but for next_segment
};

}  // namespace retro
