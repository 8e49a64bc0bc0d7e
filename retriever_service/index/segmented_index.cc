#include "retriever_service/index/segmented_index.h"

#include <algorithm>
#include <utility>

#include "common/base/heap.h"
#include "common/base/status_macros.h"
#include "retriever_service/store/layout.h"

namespace retro {

struct SegmentedIndex::View {
  struct Growing {
    std::shared_ptr<const GrowingSegment> segment;
    GrowingSegment::Rows rows;
  };
  uint64_t step = 0;
  uint64_t generation = 0;
  uint64_t rows = 0;  // that can be found
  std::vector<Growing> growing;
  std::vector<std::shared_ptr<const SealedSegment>> sealed;  // the largest first: the others then have less to add
};

SegmentedIndex::SegmentedIndex(const SegmentedIndexOptions& options, const shardpb::Position& last)
    : options_(options),
      dimension_(options.identity.dimension),
      growing_(std::make_shared<GrowingSegment>(dimension_, options.block_rows)),
      position_(last),
      view_(std::make_shared<View>()),
      folder_(options.folder, options.identity, options.settings.seal_rows) {
  sealed_ = folder_.Open(last);
  stats_.generation = sealed_.size();
}

SegmentedIndex::~SegmentedIndex() {
  stop_ = true;
  Wake();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

// ---------------------------------------------------------------- filling

bool SegmentedIndex::has_sealed_segments() const {
  const MutexLock lock(writer_mutex_);
  return !sealed_.empty();
}

bool SegmentedIndex::Restore(const std::shared_ptr<const IndexedDocument>& document) {
  const MutexLock lock(writer_mutex_);
  for (auto segment = sealed_.rbegin(); segment != sealed_.rend(); ++segment) {
    const std::optional<uint32_t> at = (*segment)->Find(document->first_chunk_id, document->chunk_count);
    if (!at.has_value()) continue;
    (*segment)->Name(*at, document);
    (*segment)->Attach(*at);
    restored_cell_ = std::max(restored_cell_, CellOf((document->first_chunk_id >> kSlotBits) + document->chunk_count));
    CountIn(*document);
    documents_[document->id] = {document, nullptr, *segment, *at};
    return true;
  }
  return false;
}

void SegmentedIndex::Restored() {
  {
    const MutexLock lock(writer_mutex_);
    if (std::exchange(restored_, true)) return;
    for (const auto& segment : sealed_) segment->MakeFilterLists();
    Publish();
  }
  GiveFreedMemoryBack();  // what making them took
  if (!options_.background) return;
  threads_[kSealer] = std::thread([this] { Run(kSealer, &SegmentedIndex::Seal); });
  threads_[kSmallMerger] = std::thread([this] { Run(kSmallMerger, &SegmentedIndex::MergeFew); });
  threads_[kMerger] = std::thread([this] { Run(kMerger, &SegmentedIndex::MergeOrMeasure); });
}

void SegmentedIndex::Filled() {
  Restored();
  {
    const MutexLock lock(writer_mutex_);
    GrowIn(restored_cell_);
    rebuilding_ = !frozen_.empty();
    Publish();
  }
  Wake();  // cells are complete that were not while it was filled
}

// ---------------------------------------------------------------- changes

std::shared_ptr<const SegmentedIndex::View> SegmentedIndex::CurrentView() const {
  const MutexLock lock(view_mutex_);
  return view_;
}

void SegmentedIndex::Publish() {
  auto view = std::make_shared<View>();
  view->step = step_;
  view->generation = stats_.generation;
  for (const Frozen& frozen : frozen_) view->growing.push_back({frozen.segment, frozen.segment->Take()});
  view->growing.push_back({growing_, growing_->Take()});
  view->rows = stats_.chunks;
  view->sealed = {sealed_.begin(), sealed_.end()};
  std::stable_sort(view->sealed.begin(), view->sealed.end(),
                   [](const auto& a, const auto& b) { return a->info().rows() > b->info().rows(); });
  const MutexLock lock(view_mutex_);
  view_ = std::move(view);
}

void SegmentedIndex::Apply(std::vector<IndexChange> changes, const shardpb::Position& position) {
  bool due = false;
  {
    const MutexLock lock(writer_mutex_);
    position_ = position;
    for (IndexChange& change : changes) {
      ++step_;
      if (change.document == nullptr) {
        Remove(change.document_id);
      } else {
        Put(std::move(change));
      }
    }
    EmptySparseBlock();
    Publish();
    due = WorkIsDue();
  }
  if (due) Wake();
}

// Rows that a document keeps move into the growing segment with it: sealed ones know it only as it was. Where all that
// changed is what no index knows, as its version, they stay: else who sends everything again has all of it sealed anew.
void SegmentedIndex::Put(IndexChange change) {
  const auto old = documents_.find(change.document_id);
  const bool keeps_rows = change.vectors.empty() && old != documents_.end();
  if (keeps_rows && *old->second.document == *change.document) return;
  const uint64_t first = change.document->first_chunk_id >> kSlotBits;
  const uint64_t cell_after = CellOf(first + change.document->chunk_count);
  GrowIn(CellOf(first));
  if (keeps_rows) change.vectors = VectorsAt(old->second);
  const uint64_t first_row = growing_->Append(change.document, change.vectors);
  Remove(change.document_id);
  CountIn(*change.document);
  documents_[change.document_id] = {std::move(change.document), growing_, nullptr, first_row};
  GrowIn(cell_after);
}

// A few rows, as of one of many collections, grow on in the next cell. Many that kept their ids, and so pass no cell's
// end, are frozen all the same.
void SegmentedIndex::GrowIn(uint64_t cell) {
  constexpr uint64_t kFewDivisor = 4, kManyFactor = 2;
  const uint64_t rows = growing_->live_rows();
  const uint64_t seal_rows = options_.settings.seal_rows;
  const bool enough = rows > 0 && rows >= seal_rows / kFewDivisor;
  if ((cell > cell_ && enough) || rows >= kManyFactor * seal_rows) Freeze();
  cell_ = std::max(cell_, cell);
}

void SegmentedIndex::Freeze() {
  frozen_.push_back(
      {std::exchange(growing_, std::make_shared<GrowingSegment>(dimension_, options_.block_rows)), step_, cell_});
}

void SegmentedIndex::CountIn(const IndexedDocument& document) {
  ++stats_.documents;
  stats_.chunks += document.chunk_count;
  changed_chunks_ += document.chunk_count;
  stats_.text_bytes += document.text_bytes;
  document_bytes_ += MemoryBytes(document);
}

void SegmentedIndex::Remove(const std::string& document_id) {
  const auto it = documents_.find(document_id);
  if (it == documents_.end()) return;
  RemoveRows(it->second);
  --stats_.documents;
  stats_.chunks -= it->second.document->chunk_count;
  changed_chunks_ += it->second.document->chunk_count;
  stats_.text_bytes -= it->second.document->text_bytes;
  document_bytes_ -= MemoryBytes(*it->second.document);
  documents_.erase(it);
}

void SegmentedIndex::RemoveRows(const Place& place) {
  if (place.sealed != nullptr) {
    place.sealed->Remove(static_cast<uint32_t>(place.at), step_);
    RemoveFromReplaced(place);
  } else {
    place.growing->Remove(place.at, place.document->chunk_count, step_);
  }
}

std::string SegmentedIndex::VectorsAt(const Place& place) const {
  if (place.sealed != nullptr) return std::string(place.sealed->VectorsOf(static_cast<uint32_t>(place.at)));
  std::string room;
  const std::string_view vectors = place.growing->VectorsOf(place.at, place.document->chunk_count, room);
  return room.empty() ? std::string(vectors) : room;
}

// Moves the documents of one block that is mostly gone to the end, and gives up the blocks that hold nothing any more.
void SegmentedIndex::EmptySparseBlock() {
  for (const auto& document : growing_->SparseDocuments()) {
    Place& place = documents_.at(document->id);
    const std::string vectors = VectorsAt(place);
    RemoveRows(place);
    place.at = growing_->Append(document, vectors);
  }
  growing_->GiveUpEmptyBlocks();
}

// ---------------------------------------------------------------- reading

absl::StatusOr<IndexAnswer> SegmentedIndex::Search(std::span<const IndexQuery> queries,
                                                   const IndexSearchOptions& options,
                                                   const CallContext& context) const {
  const std::shared_ptr<const View> view = CurrentView();
  const SegmentSearch search = {queries, options, view->step, view->rows, context};
  std::vector<TopK> best(queries.size(), search.EmptyBest());
  for (const View::Growing& growing : view->growing) {
    RETRO_RETURN_IF_ERROR(growing.segment->Search(growing.rows, search, best));
  }
  for (const auto& segment : view->sealed) RETRO_RETURN_IF_ERROR(segment->Search(search, best));
  IndexAnswer answer;
  answer.generation = view->generation;
  answer.hits.resize(best.size());
  for (size_t q = 0; q < best.size(); ++q) {
    answer.hits[q].reserve(best[q].best().size());
    for (const Candidate& candidate : best[q].best()) {
      answer.hits[q].push_back({candidate.distance, candidate.chunk_id, *candidate.document});
    }
  }
  return answer;
}

absl::Status SegmentedIndex::VisitMatching(const CompiledFilter& filter, const CallContext& context,
                                           const std::function<bool(const IndexedDocument&)>& visit) const {
  const std::shared_ptr<const View> view = CurrentView();
  bool goes_on = true;
  for (const View::Growing& growing : view->growing) {
    RETRO_RETURN_IF_ERROR(context.Check());
    growing.segment->Visit(growing.rows, view->step, &filter,
                           [&](const auto& document, uint64_t) { goes_on = goes_on && visit(*document); });
  }
  for (auto segment = view->sealed.begin(); segment != view->sealed.end() && goes_on; ++segment) {
    RETRO_ASSIGN_OR_RETURN(goes_on, (*segment)->VisitMatching(filter, view->step, context, visit));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> SegmentedIndex::MatchingDocuments(const CompiledFilter& filter,
                                                                           uint64_t newest, size_t most,
                                                                           const CallContext& context) const {
  std::vector<std::string> ids;
  RETRO_RETURN_IF_ERROR(VisitMatching(filter, context, [&](const IndexedDocument& document) {
    if (document.first_chunk_id <= newest) ids.push_back(document.id);
    return ids.size() < most;
  }));
  return ids;
}

absl::StatusOr<uint64_t> SegmentedIndex::NewestMatching(const CompiledFilter& filter,
                                                        const CallContext& context) const {
  uint64_t newest = 0;
  RETRO_RETURN_IF_ERROR(VisitMatching(filter, context, [&newest](const IndexedDocument& document) {
    newest = std::max(newest, document.first_chunk_id);
    return true;
  }));
  return newest;
}

absl::StatusOr<uint64_t> SegmentedIndex::CountMatching(const CompiledFilter& filter, const CallContext& context) const {
  uint64_t count = 0;
  RETRO_RETURN_IF_ERROR(VisitMatching(filter, context, [&count](const IndexedDocument&) { return ++count > 0; }));
  return count;
}

IndexStats SegmentedIndex::Stats() const {
  const MutexLock lock(writer_mutex_);
  IndexStats stats = stats_;
  for (const auto& segment : sealed_) stats.segments.push_back(segment->Size());
  for (const Frozen& frozen : frozen_) stats.segments.push_back(frozen.segment->Size());
  stats.segments.push_back(growing_->Size());
  stats.document_bytes = document_bytes_ + documents_.capacity() * (sizeof(*documents_.begin()) + 1);
  stats.building_bytes = building_bytes_.load(std::memory_order_relaxed);
  if (rebuilding_) {
    stats.state = pb::INDEX_STATE_REBUILDING;
  } else if (!sealed_.empty()) {
    stats.state = pb::INDEX_STATE_READY;
  } else {
    stats.state = building_ > 0 ? pb::INDEX_STATE_TRAINING : pb::INDEX_STATE_EXACT;
    stats.measured_recall = 1;
  }
  return stats;
}

}  // namespace retro
