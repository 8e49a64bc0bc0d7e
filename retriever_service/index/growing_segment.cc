#include "retriever_service/index/growing_segment.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "common/base/status_macros.h"
#include "common/document/half.h"
#include "retriever_service/index/filter_lists.h"
#include "retriever_service/index/half_distance.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

// Rows compared with all queries while they are in the cache.
constexpr uint32_t kTileRows = 64;
// A full block with fewer live rows than 1 / kSparseDivisor of its rows is emptied.
constexpr uint32_t kSparseDivisor = 4;

}  // namespace

struct GrowingSegment::Block {
  Block(uint64_t first, uint32_t rows, size_t vector_bytes)
      : first_row(first),
        vectors(std::make_unique_for_overwrite<char[]>(rows * vector_bytes)),
        chunk_ids(std::make_unique<uint64_t[]>(rows)),
        documents(std::make_unique<std::shared_ptr<const IndexedDocument>[]>(rows)),
        removed_at(std::make_unique<std::atomic<uint64_t>[]>(rows)) {
    for (uint32_t i = 0; i < rows; ++i) removed_at[i].store(kNeverRemoved, std::memory_order_relaxed);
  }

  // Of a block that is full.
  void MakeFilterLists(uint32_t rows) {
    std::vector<const IndexedDocument*> distinct;
    document_of_row.reserve(rows);
    for (uint32_t i = 0; i < rows; ++i) {
      if (distinct.empty() || distinct.back() != documents[i].get()) distinct.push_back(documents[i].get());
      document_of_row.push_back(static_cast<uint32_t>(distinct.size() - 1));
    }
    filter_lists.emplace(distinct);
  }

  const uint64_t first_row;
  uint32_t live_rows = 0;           // the writer's
  std::unique_ptr<char[]> vectors;  // half precision, [rows, dimension]
  std::unique_ptr<uint64_t[]> chunk_ids;
  std::unique_ptr<std::shared_ptr<const IndexedDocument>[]> documents;
  std::unique_ptr<std::atomic<uint64_t>[]> removed_at;  // the step that removed the row
  // Made when the block is full: not to be looked at by a search that took it before.
  std::optional<const FilterLists> filter_lists;
  std::vector<uint32_t> document_of_row;  // as the lists number them
};

GrowingSegment::GrowingSegment(int dimension, uint32_t block_rows)
    : vector_bytes_(size_t(dimension) * kHalfBytes), block_rows_(block_rows) {}

GrowingSegment::~GrowingSegment() = default;

// ---------------------------------------------------------------- changes

uint64_t GrowingSegment::Append(const std::shared_ptr<const IndexedDocument>& document, std::string_view vectors) {
  const uint64_t first_row = rows_;
  for (uint32_t i = 0; i < document->chunk_count; ++i, ++rows_) {
    if (rows_ % block_rows_ == 0) blocks_.push_back(std::make_shared<Block>(rows_, block_rows_, vector_bytes_));
    Block& block = *blocks_.back();
    const uint64_t place = rows_ % block_rows_;
    std::memcpy(block.vectors.get() + place * vector_bytes_, vectors.data() + i * vector_bytes_, vector_bytes_);
    block.chunk_ids[place] = ChunkIdAt(document->first_chunk_id, i);
    block.documents[place] = document;
    ++block.live_rows;
    if (place + 1 == block_rows_) block.MakeFilterLists(block_rows_);
  }
  live_total_ += document->chunk_count;
  return first_row;
}

void GrowingSegment::Remove(uint64_t first_row, uint32_t count, uint64_t step) {
  for (uint64_t row = first_row; row < first_row + count; ++row) {
    Block& block = BlockOf(row);
    block.removed_at[row % block_rows_].store(step, std::memory_order_relaxed);
    --block.live_rows;
  }
  live_total_ -= count;
}

uint64_t GrowingSegment::RemovedAt(uint64_t row) const {
  return BlockOf(row).removed_at[row % block_rows_].load(std::memory_order_relaxed);
}

std::string_view GrowingSegment::VectorsOf(uint64_t first_row, uint32_t count, std::string& room) const {
  room.clear();
  for (uint64_t row = first_row; row < first_row + count;) {
    const uint64_t place = row % block_rows_;
    const uint64_t here = std::min(first_row + count - row, block_rows_ - place);
    const std::string_view vectors(BlockOf(row).vectors.get() + place * vector_bytes_, here * vector_bytes_);
    if (here == count) return vectors;
    room += vectors;
    row += here;
  }
  return room;
}

std::vector<std::shared_ptr<const IndexedDocument>> GrowingSegment::SparseDocuments() const {
  std::vector<std::shared_ptr<const IndexedDocument>> documents;
  for (const auto& block : blocks_) {
    if (RowsIn(*block, rows_) < block_rows_ || block->live_rows >= block_rows_ / kSparseDivisor) continue;
    for (uint32_t i = 0; i < block_rows_; ++i) {
      if (block->removed_at[i].load(std::memory_order_relaxed) != kNeverRemoved) continue;
      if (documents.empty() || documents.back() != block->documents[i]) documents.push_back(block->documents[i]);
    }
    if (!documents.empty()) break;
  }
  return documents;
}

// Searches that began before keep them alive.
void GrowingSegment::GiveUpEmptyBlocks() {
  std::erase_if(blocks_, [&](const std::shared_ptr<Block>& block) {
    return block->live_rows == 0 && RowsIn(*block, rows_) == block_rows_;
  });
}

GrowingSegment::Block& GrowingSegment::BlockOf(uint64_t row) const {
  const auto after =
      std::upper_bound(blocks_.begin(), blocks_.end(), row,
                       [](uint64_t wanted, const std::shared_ptr<Block>& block) { return wanted < block->first_row; });
  return **std::prev(after);
}

uint64_t GrowingSegment::RowsIn(const Block& block, uint64_t count) const {
  return std::min<uint64_t>(block_rows_, count - block.first_row);
}

SegmentSize GrowingSegment::Size() const {
  SegmentSize size{.kind = "exact"};
  const size_t row_bytes = vector_bytes_ + sizeof(uint64_t) * 2 + sizeof(std::shared_ptr<const IndexedDocument>);
  for (const auto& block : blocks_) {
    size.rows += RowsIn(*block, rows_);
    size.memory_bytes += block_rows_ * row_bytes;
    if (block->filter_lists.has_value()) {
      size.memory_bytes += block->filter_lists->memory_bytes() + block_rows_ * sizeof(uint32_t);
    }
  }
  size.deleted = size.rows - live_total_;
  return size;
}

// ---------------------------------------------------------------- searching

// For which rows of a block a filter is true: by the block's lists, or, in the last block, which has none yet, one
// document after the other.
class GrowingSegment::Matches {
 public:
  Matches(const Block& block, bool is_full, const CompiledFilter* filter) : block_(block), filter_(filter) {
    if (filter == nullptr || !is_full) return;
    set_.emplace(block.filter_lists->Matching(*filter));
    none_ = set_->count() == 0;
  }

  bool none() const { return none_; }  // surely
  bool Contains(uint64_t place) {
    if (filter_ == nullptr) return true;
    if (set_.has_value()) return set_->Contains(block_.document_of_row[place]);
    const IndexedDocument* document = block_.documents[place].get();
    if (document != last_document_) {  // a document's rows lie together, so the last answer often serves again
      last_document_ = document;
      last_matches_ = filter_->Matches(*document);
    }
    return last_matches_;
  }

 private:
  const Block& block_;
  const CompiledFilter* const filter_;
  std::optional<const DocumentSet> set_;
  bool none_ = false;
  const IndexedDocument* last_document_ = nullptr;
  bool last_matches_ = false;
};

class GrowingSegment::Scan {
 public:
  Scan(const SegmentSearch& search, size_t vector_bytes, std::vector<TopK>& best)
      : search_(search), vector_bytes_(vector_bytes), best_(best) {}

  void ScanTile(const Block& block, Matches& matches, uint32_t begin, uint32_t end) {
    uint32_t rows[kTileRows];
    uint32_t count = 0;
    for (uint32_t row = begin; row < end; ++row) {
      if (block.removed_at[row].load(std::memory_order_relaxed) <= search_.step) continue;
      if (matches.Contains(row)) rows[count++] = row;
    }
    if (count == 0) return;
    for (size_t q = 0; q < search_.queries.size(); ++q) {
      for (const uint32_t row : std::span(rows, count)) {
        const std::string_view vector(block.vectors.get() + row * vector_bytes_, vector_bytes_);
        const float distance = SquaredDistance(search_.queries[q].vector, vector);
        if (!best_[q].Wants(distance, block.chunk_ids[row])) continue;
        if (search_.IsExcluded(q, *block.documents[row])) continue;
        best_[q].Add({distance, block.chunk_ids[row], &block.documents[row]});
      }
    }
  }

 private:
  const SegmentSearch& search_;
  const size_t vector_bytes_;
  std::vector<TopK>& best_;
};

void GrowingSegment::Visit(
    const Rows& rows, uint64_t step, const CompiledFilter* filter,
    const std::function<void(const std::shared_ptr<const IndexedDocument>&, uint64_t first_row)>& visit) const {
  for (const auto& each : rows.blocks) {
    const Block& block = *each;
    const uint64_t in_block = RowsIn(block, rows.count);
    Matches matches(block, in_block == block_rows_, filter);
    for (uint64_t place = 0; place < in_block && !matches.none();) {
      const std::shared_ptr<const IndexedDocument>& document = block.documents[place];
      // Not 0 where the document began in the block before.
      const uint32_t chunk = ChunkNumber(document->first_chunk_id, block.chunk_ids[place]);
      const bool is_removed = block.removed_at[place].load(std::memory_order_relaxed) <= step;
      if (chunk == 0 && !is_removed && matches.Contains(place)) visit(document, block.first_row + place);
      place += document->chunk_count - chunk;
    }
  }
}

absl::Status GrowingSegment::Search(const Rows& rows, const SegmentSearch& search, std::vector<TopK>& best) const {
  Scan scan(search, vector_bytes_, best);
  for (const auto& block : rows.blocks) {
    RETRO_RETURN_IF_ERROR(search.context.Check());
    const uint64_t in_block = RowsIn(*block, rows.count);
    Matches matches(*block, in_block == block_rows_, search.options.filter);
    for (uint32_t begin = 0; begin < in_block && !matches.none(); begin += kTileRows) {
      scan.ScanTile(*block, matches, begin, std::min<uint64_t>(in_block, begin + kTileRows));
    }
  }
  return absl::OkStatus();
}

}  // namespace retro
