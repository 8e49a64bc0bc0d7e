// The segment that new chunks come into: half-precision vectors in memory, in blocks that grow at the end. Every one is
// compared.
//
// Rows are written once. Which of them a search sees is decided by numbers alone: it takes the rows that there were at
// a step of the index and skips those that were removed at that step or before. So searches and changes never wait for
// each other, and a change of many rows becomes visible at once.
//
// Threads: one at a time changes it, the index's writer; searches run on any beside it, over a Rows taken before.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "retriever_service/index/segment_search.h"

namespace retro {

class GrowingSegment {
 private:
  struct Block;

 public:
  // What a search sees: the rows as they were when it was taken.
  struct Rows {
    uint64_t count = 0;
    std::vector<std::shared_ptr<const Block>> blocks;  // in order, without those that were emptied
  };

  GrowingSegment(int dimension, uint32_t block_rows);
  ~GrowingSegment();

  // One row a chunk; `vectors` in half precision, [chunk_count, dimension]. Returns the first row; they are
  // consecutive.
  uint64_t Append(const std::shared_ptr<const IndexedDocument>& document, std::string_view vectors);
  void Remove(uint64_t first_row, uint32_t count, uint64_t step);
  uint64_t RemovedAt(uint64_t row) const;
  // Half precision, [count, dimension]: as they lie if they are in one block, else copied to `room`.
  std::string_view VectorsOf(uint64_t first_row, uint32_t count, std::string& room) const;
  // Documents in a full block of which so little is left that they are better moved to the end; none if there is no
  // such block. Once they are moved and removed, GiveUpEmptyBlocks frees it.
  std::vector<std::shared_ptr<const IndexedDocument>> SparseDocuments() const;
  void GiveUpEmptyBlocks();
  Rows Take() const { return {rows_, {blocks_.begin(), blocks_.end()}}; }
  uint64_t live_rows() const { return live_total_; }
  SegmentSize Size() const;

  // Each document that a search at `step` may find and for which the filter, if any, is true, with its first row.
  void Visit(const Rows& rows, uint64_t step, const CompiledFilter* filter,
             const std::function<void(const std::shared_ptr<const IndexedDocument>&, uint64_t first_row)>& visit) const;

  // Adds what the search wants to `best`, one a query. CANCELLED or DEADLINE_EXCEEDED if the caller left.
  absl::Status Search(const Rows& rows, const SegmentSearch& search, std::vector<TopK>& best) const;

 private:
  class Matches;
  class Scan;

  const size_t vector_bytes_;
  const uint32_t block_rows_;
  Block& BlockOf(uint64_t row) const;
  // Rows that a block has at a time when there are `count` in all.
  uint64_t RowsIn(const Block& block, uint64_t count) const;

  std::vector<std::shared_ptr<Block>> blocks_;  // in order
  uint64_t rows_ = 0;                           // ever appended
  uint64_t live_total_ = 0;
};

}  // namespace retro
