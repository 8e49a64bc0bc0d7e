// The index that compares every chunk: single-precision vectors in memory, in blocks that grow at the end.
//
// Rows are written once. Which of them a search sees is decided by numbers alone: it takes a view (how many rows there
// are, and the step that made it) and skips rows that were removed at that step or before. So searches and changes
// never wait for each other, and a change of many rows becomes visible at once. Blocks whose rows are mostly gone are
// emptied into the growing one, as part of a step.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/base/sync.h"
#include "retriever_service/index/vector_index.h"

namespace retro {

class ExactIndex : public VectorIndex {
 public:
  // Blocks of `block_rows` rows; tests take small ones.
  static constexpr uint32_t kBlockRows = 16384;
  explicit ExactIndex(int dimension, uint32_t block_rows = kBlockRows);
  ~ExactIndex() override;

  void Apply(std::vector<IndexChange> changes) override ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_);
  absl::StatusOr<IndexAnswer> Search(std::span<const IndexQuery> queries, const IndexSearchOptions& options,
                                     const CallContext& context) const override;
  std::vector<std::string> MatchingDocuments(const CompiledFilter& filter) const override
      ABSL_LOCKS_EXCLUDED(view_mutex_);
  IndexStats Stats() const override ABSL_LOCKS_EXCLUDED(writer_mutex_);

 private:
  struct Block;
  struct View;
  class Scan;
  // A document's rows are consecutive.
  struct Place {
    std::shared_ptr<const IndexedDocument> document;
    uint64_t first_row;
  };

  std::shared_ptr<const View> CurrentView() const ABSL_LOCKS_EXCLUDED(view_mutex_);
  void Put(IndexChange change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void Remove(const std::string& document_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void RemoveRows(const Place& place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  uint64_t AppendRows(const std::shared_ptr<const IndexedDocument>& document, const float* vectors,
                      uint64_t rows_to_copy_from) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void EmptySparseBlock() ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  const float* VectorAt(uint64_t row) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);

  const int dimension_;
  const uint32_t block_rows_;

  mutable Mutex writer_mutex_;                                                 // held through Apply; never by searches
  std::vector<std::shared_ptr<Block>> blocks_ ABSL_GUARDED_BY(writer_mutex_);  // null where a block was emptied
  std::vector<uint32_t> live_rows_ ABSL_GUARDED_BY(writer_mutex_);             // a block
  uint64_t rows_ ABSL_GUARDED_BY(writer_mutex_) = 0;                           // ever appended
  uint64_t step_ ABSL_GUARDED_BY(writer_mutex_) = 0;                           // that Apply is making, or has made last
  absl::flat_hash_map<std::string, Place> documents_ ABSL_GUARDED_BY(writer_mutex_);
  IndexStats stats_ ABSL_GUARDED_BY(writer_mutex_);

  mutable Mutex view_mutex_;  // for the pointer alone
  std::shared_ptr<const View> view_ ABSL_GUARDED_BY(view_mutex_);
};

}  // namespace retro
