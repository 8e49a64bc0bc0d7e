// A segment that takes no more chunks: inverted lists of quantised vectors in memory, which find candidates, and all
// its vectors in half precision in a mapped file, against which these are compared. FORMAT.md describes the files.
//
// A document's rows are consecutive and go together, so what is deleted is noted a document, not a row: as the step of
// the index at which it went. That is not written down: after a restart exactly those documents are attached again that
// the store still has.
//
// Threads: one at a time attaches and removes, the index's writer; searches run on any beside it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/file.h"
#include "retriever_service/index/faiss_library.h"
#include "retriever_service/index/filter_lists.h"
#include "retriever_service/index/segment_search.h"
#include "retro/shard/v1/index.pb.h"

namespace retro {

// An entry of a segment's documents file; the entries are in the order of both numbers.
struct SealedDocument {
  uint64_t first_chunk_id;
  uint64_t first_row;
};
static_assert(sizeof(SealedDocument) == 16);

struct SegmentPaths {
  std::string vectors, documents, lists;
};
SegmentPaths PathsOfSegment(const std::string& folder, uint64_t number);

class SealedSegment {
 public:
  // Maps the segment that `info` describes, every byte's checksum compared. DATA_LOSS or NOT_FOUND if a file is not as
  // it says. All its documents are removed until they are attached.
  static absl::StatusOr<std::shared_ptr<SealedSegment>> Open(const std::string& folder,
                                                             const shardpb::IndexSegment& info, int dimension);

  const shardpb::IndexSegment& info() const { return info_; }

  // The number, in this segment, of the document that has just these rows.
  std::optional<uint32_t> Find(uint64_t first_chunk_id, uint32_t chunk_count) const;
  // Before any search sees the segment: what each document is, then the lists by which filters find them, then which of
  // them a search may find.
  void Name(uint32_t at, std::shared_ptr<const IndexedDocument> document);
  void MakeFilterLists();
  void Attach(uint32_t at);
  // Also of one that never was attached: it is not seen, but was there until then.
  void Remove(uint32_t at, uint64_t step);
  uint64_t RemovedAt(uint32_t at) const { return entries_[at].removed_at.load(std::memory_order_relaxed); }
  uint32_t documents() const { return static_cast<uint32_t>(entries_.size()); }
  // As a search at `step` may find it; null if it was removed at that step or before.
  std::shared_ptr<const IndexedDocument> DocumentAt(uint32_t at, uint64_t step) const;
  // Calls visit(document) for each that a search at `step` may find and for which the filter is true, until it says
  // false, and then returns false. Errors as of FilterLists::Matching.
  absl::StatusOr<bool> VisitMatching(const CompiledFilter& filter, uint64_t step, const CallContext& context,
                                     const std::function<bool(const IndexedDocument&)>& visit) const;
  // Half precision, [chunk_count, dimension].
  std::string_view VectorsOf(uint32_t at) const;

  bool IsMuchGone(uint64_t n) const { return info_.rows() - live_rows() > info_.rows() / n; }  // more than 1 / n
  // The step at which more than the n-th part of its rows was gone; the last one if then the same was true of what was
  // left, and so on. Of a segment of which it is true now.
  uint64_t StepWhenGone(uint64_t n) const;
  uint64_t last_chunk_id() const { return table_.back().first_chunk_id; }  // the first one of its newest document
  // The index's step after which none of the cells in it grew. The writer's.
  uint64_t complete_step() const { return complete_step_; }
  void set_complete_step(uint64_t step) { complete_step_ = step; }

  uint64_t live_rows() const { return live_rows_.load(std::memory_order_relaxed); }
  SegmentSize Size() const;

  // Adds what the search wants to `best`, one a query. CANCELLED or DEADLINE_EXCEEDED if the caller left.
  absl::Status Search(const SegmentSearch& search, std::vector<TopK>& best) const;

 private:
  class Scan;
  class Probing;
  struct Entry {
    std::shared_ptr<const IndexedDocument> document;  // null: the store has it no longer
    std::atomic<uint64_t> removed_at = kRemovedBeforeAll;
  };

  SealedSegment(shardpb::IndexSegment info, int dimension, MappedFile vectors, MappedFile documents);
  absl::Status CheckDocuments();
  void MakeMarks();
  bool IsRemoved(uint32_t at, uint64_t step) const { return RemovedAt(at) <= step; }
  // Of the rows, how many a search may find; of many documents an estimate. `matching`: what its filter lets pass; null
  // if it has none.
  double FindableShare(uint64_t step, const DocumentSet* matching) const;
  uint64_t FirstRow(uint32_t at) const { return at < table_.size() ? table_[at].first_row : info_.rows(); }
  uint32_t DocumentOfRow(uint64_t row) const;  // of a segment with lists
  uint32_t ChunkCount(uint32_t at) const { return static_cast<uint32_t>(FirstRow(at + 1) - FirstRow(at)); }
  std::string_view VectorAt(uint64_t row) const;
  // Rows that are compared soon lie anywhere in the file: they are on their way to the cache while others are compared.
  void Prefetch(uint64_t row) const;

  const shardpb::IndexSegment info_;
  const int dimension_;
  const MappedFile vectors_;
  const MappedFile documents_;
  const std::span<const SealedDocument> table_;  // in documents_
  std::vector<uint32_t> marks_;                  // the document of each kRowsAMark-th row; empty without lists
  std::unique_ptr<const QuantisedLists> lists_;  // null: every vector is compared
  std::vector<Entry> entries_;                   // a document
  std::optional<const FilterLists> filter_lists_;
  std::atomic<uint64_t> live_rows_ = 0;
  uint64_t complete_step_ = 0;
};

}  // namespace retro
