#include "retriever_service/index/exact_index.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "common/base/status_macros.h"
#include "retriever_service/index/distance.h"
#include "retriever_service/index/top_k.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr uint64_t kNeverRemoved = std::numeric_limits<uint64_t>::max();
// Rows compared with all queries while they are in the cache.
constexpr uint32_t kTileRows = 64;
// A full block with fewer live rows than 1 / kSparseDivisor of its rows is emptied.
constexpr uint32_t kSparseDivisor = 4;

}  // namespace

struct ExactIndex::Block {
  Block(uint32_t rows, int dimension)
      : vectors(std::make_unique_for_overwrite<float[]>(size_t{rows} * dimension)),
        chunk_ids(std::make_unique<uint64_t[]>(rows)),
        documents(std::make_unique<std::shared_ptr<const IndexedDocument>[]>(rows)),
        removed_at(std::make_unique<std::atomic<uint64_t>[]>(rows)) {
    for (uint32_t i = 0; i < rows; ++i) removed_at[i].store(kNeverRemoved, std::memory_order_relaxed);
  }

  std::unique_ptr<float[]> vectors;  // [rows, dimension]
  std::unique_ptr<uint64_t[]> chunk_ids;
  std::unique_ptr<std::shared_ptr<const IndexedDocument>[]> documents;
  std::unique_ptr<std::atomic<uint64_t>[]> removed_at;  // the step that removed the row
};

struct ExactIndex::View {
  uint64_t step = 0;
  uint64_t rows = 0;
  uint64_t generation = 0;
  std::vector<std::shared_ptr<Block>> blocks;
};

ExactIndex::ExactIndex(int dimension, uint32_t block_rows)
    : dimension_(dimension), block_rows_(block_rows), view_(std::make_shared<View>()) {}

ExactIndex::~ExactIndex() = default;

std::shared_ptr<const ExactIndex::View> ExactIndex::CurrentView() const {
  const MutexLock lock(view_mutex_);
  return view_;
}

// ---------------------------------------------------------------- changes

void ExactIndex::Apply(std::vector<IndexChange> changes) {
  const MutexLock lock(writer_mutex_);
  ++step_;
  for (IndexChange& change : changes) {
    if (change.document == nullptr) {
      Remove(change.document_id);
    } else {
      Put(std::move(change));
    }
  }
  EmptySparseBlock();
  auto view = std::make_shared<View>();
  view->step = step_;
  view->rows = rows_;
  view->generation = stats_.generation;
  view->blocks = blocks_;
  const MutexLock view_lock(view_mutex_);
  view_ = std::move(view);
}

void ExactIndex::Put(IndexChange change) {
  const auto old = documents_.find(change.document_id);
  const bool keeps_vectors = change.vectors.empty() && old != documents_.end();
  const uint64_t first_row = AppendRows(change.document, keeps_vectors ? nullptr : change.vectors.data(),
                                        keeps_vectors ? old->second.first_row : 0);
  Remove(change.document_id);
  ++stats_.documents;
  stats_.chunks += change.document->chunk_count;
  stats_.text_bytes += change.document->text_bytes;
  stats_.memory_bytes += MemoryBytes(*change.document);
  documents_[change.document_id] = {std::move(change.document), first_row};
}

void ExactIndex::Remove(const std::string& document_id) {
  const auto it = documents_.find(document_id);
  if (it == documents_.end()) return;
  RemoveRows(it->second);
  --stats_.documents;
  stats_.chunks -= it->second.document->chunk_count;
  stats_.text_bytes -= it->second.document->text_bytes;
  stats_.memory_bytes -= MemoryBytes(*it->second.document);
  documents_.erase(it);
}

void ExactIndex::RemoveRows(const Place& place) {
  for (uint64_t row = place.first_row; row < place.first_row + place.document->chunk_count; ++row) {
    const uint64_t block = row / block_rows_;
    blocks_[block]->removed_at[row % block_rows_].store(step_, std::memory_order_relaxed);
    --live_rows_[block];
  }
}

const float* ExactIndex::VectorAt(uint64_t row) const {
  return blocks_[row / block_rows_]->vectors.get() + row % block_rows_ * dimension_;
}

// Vectors from `vectors`, or, if that is null, from the rows that begin at `rows_to_copy_from`. Returns the first row.
uint64_t ExactIndex::AppendRows(const std::shared_ptr<const IndexedDocument>& document, const float* vectors,
                                uint64_t rows_to_copy_from) {
  const uint64_t first_row = rows_;
  for (uint32_t i = 0; i < document->chunk_count; ++i, ++rows_) {
    if (rows_ % block_rows_ == 0) {
      blocks_.push_back(std::make_shared<Block>(block_rows_, dimension_));
      live_rows_.push_back(0);
      ++stats_.generation;
    }
    Block& block = *blocks_.back();
    const uint64_t place = rows_ % block_rows_;
    const float* vector = vectors != nullptr ? vectors + size_t{i} * dimension_ : VectorAt(rows_to_copy_from + i);
    std::memcpy(block.vectors.get() + place * dimension_, vector, sizeof(float) * dimension_);
    block.chunk_ids[place] = ChunkIdAt(document->first_chunk_id, i);
    block.documents[place] = document;
    ++live_rows_.back();
  }
  return first_row;
}

// Moves the documents of one full block that is mostly gone to the end, and gives up the blocks that hold nothing any
// more. Searches that began before keep them alive.
void ExactIndex::EmptySparseBlock() {
  const size_t full_blocks = rows_ / block_rows_;
  for (size_t b = 0; b < full_blocks; ++b) {
    if (blocks_[b] == nullptr || live_rows_[b] >= block_rows_ / kSparseDivisor) continue;
    const std::shared_ptr<Block> block = blocks_[b];
    for (uint32_t i = 0; i < block_rows_; ++i) {
      if (block->removed_at[i].load(std::memory_order_relaxed) != kNeverRemoved) continue;
      Place& place = documents_.at(block->documents[i]->id);
      const uint64_t moved_to = AppendRows(place.document, nullptr, place.first_row);
      RemoveRows(place);
      place.first_row = moved_to;
    }
    blocks_[b] = nullptr;
    ++stats_.generation;
    return;
  }
}

// ---------------------------------------------------------------- searching

// One search over one view.
class ExactIndex::Scan {
 public:
  Scan(std::shared_ptr<const View> view, uint32_t block_rows, std::span<const IndexQuery> queries,
       const IndexSearchOptions& options)
      : view_(std::move(view)),
        block_rows_(block_rows),
        queries_(queries),
        options_(options),
        best_(queries.size(), TopK(options.k, options.chunks_per_document_max,
                                   options.max_distance.value_or(std::numeric_limits<float>::infinity()))) {}

  absl::Status Run(const CallContext& context) {
    for (size_t b = 0; b < view_->blocks.size(); ++b) {
      RETRO_RETURN_IF_ERROR(context.Check());
      if (view_->blocks[b] == nullptr) continue;
      const uint64_t rows = std::min<uint64_t>(block_rows_, view_->rows - b * block_rows_);
      for (uint32_t begin = 0; begin < rows; begin += kTileRows) {
        ScanTile(*view_->blocks[b], begin, std::min<uint64_t>(rows, begin + kTileRows));
      }
    }
    return absl::OkStatus();
  }

  IndexAnswer Answer() const {
    IndexAnswer answer;
    answer.generation = view_->generation;
    std::vector<std::vector<IndexHit>>& hits = answer.hits;
    hits.resize(best_.size());
    for (size_t q = 0; q < best_.size(); ++q) {
      hits[q].reserve(best_[q].best().size());
      for (const Candidate& candidate : best_[q].best()) {
        hits[q].push_back({candidate.distance, candidate.chunk_id, *candidate.document});
      }
    }
    return answer;
  }

 private:
  void ScanTile(const Block& block, uint32_t begin, uint32_t end) {
    uint32_t rows[kTileRows];
    float distances[kTileRows];
    uint32_t count = 0;
    for (uint32_t row = begin; row < end; ++row) {
      if (block.removed_at[row].load(std::memory_order_relaxed) <= view_->step) continue;
      if (!Passes(*block.documents[row])) continue;
      rows[count++] = row;
    }
    if (count == 0) return;
    for (size_t q = 0; q < queries_.size(); ++q) {
      SquaredDistances(queries_[q].vector, block.vectors.get(), std::span(rows, count), distances);
      for (uint32_t i = 0; i < count; ++i) {
        const uint32_t row = rows[i];
        if (!best_[q].Wants(distances[i], block.chunk_ids[row])) continue;
        if (!queries_[q].excluded_ids.empty() && queries_[q].excluded_ids.contains(block.documents[row]->id)) continue;
        best_[q].Add({distances[i], block.chunk_ids[row], &block.documents[row]});
      }
    }
  }

  // A document's rows lie together, so the last answer often serves again.
  bool Passes(const IndexedDocument& document) {
    if (options_.filter == nullptr) return true;
    if (&document != last_document_) {
      last_document_ = &document;
      last_passes_ = options_.filter->Matches(document);
    }
    return last_passes_;
  }

  const std::shared_ptr<const View> view_;
  const uint32_t block_rows_;
  const std::span<const IndexQuery> queries_;
  const IndexSearchOptions& options_;
  std::vector<TopK> best_;  // a query
  const IndexedDocument* last_document_ = nullptr;
  bool last_passes_ = false;
};

absl::StatusOr<IndexAnswer> ExactIndex::Search(std::span<const IndexQuery> queries, const IndexSearchOptions& options,
                                               const CallContext& context) const {
  Scan scan(CurrentView(), block_rows_, queries, options);
  RETRO_RETURN_IF_ERROR(scan.Run(context));
  return scan.Answer();
}

std::vector<std::string> ExactIndex::MatchingDocuments(const CompiledFilter& filter) const {
  const std::shared_ptr<const View> view = CurrentView();
  std::vector<std::string> ids;
  const IndexedDocument* last = nullptr;  // a document's rows lie together
  for (size_t b = 0; b < view->blocks.size(); ++b) {
    const Block* block = view->blocks[b].get();
    if (block == nullptr) continue;
    const uint64_t rows = std::min<uint64_t>(block_rows_, view->rows - b * block_rows_);
    for (uint32_t row = 0; row < rows; ++row) {
      if (block->removed_at[row].load(std::memory_order_relaxed) <= view->step) continue;
      const IndexedDocument* document = block->documents[row].get();
      if (std::exchange(last, document) != document && filter.Matches(*document)) ids.push_back(document->id);
    }
  }
  return ids;
}

IndexStats ExactIndex::Stats() const {
  const MutexLock lock(writer_mutex_);
  IndexStats stats = stats_;
  stats.memory_bytes += documents_.capacity() * (sizeof(*documents_.begin()) + 1);
  for (size_t b = 0; b < blocks_.size(); ++b) {
    if (blocks_[b] == nullptr) continue;
    const uint64_t rows = std::min<uint64_t>(block_rows_, rows_ - b * block_rows_);
    stats.rows += rows;
    stats.memory_bytes +=
        rows * (sizeof(float) * dimension_ + sizeof(uint64_t) * 2 + sizeof(std::shared_ptr<const IndexedDocument>));
  }
  return stats;
}

}  // namespace retro
