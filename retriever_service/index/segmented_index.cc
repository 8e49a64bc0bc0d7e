#include "retriever_service/index/segmented_index.h"

#include <utility>

#include "common/base/status_macros.h"

namespace retro {

struct SegmentedIndex::View {
  struct Growing {
    std::shared_ptr<const GrowingSegment> segment;
    GrowingSegment::Rows rows;
  };
  uint64_t step = 0;
  uint64_t generation = 0;
  std::vector<Growing> growing;
  std::vector<std::shared_ptr<const SealedSegment>> sealed;
};

SegmentedIndex::SegmentedIndex(const SegmentedIndexOptions& options, const shardpb::Position& last)
    : options_(options),
      dimension_(options.identity.dimension),
      growing_(std::make_shared<GrowingSegment>(dimension_, options.block_rows)),
      position_(last),
      view_(std::make_shared<View>()),
      folder_(options.folder, options.identity) {
  sealed_ = folder_.Open(last);
  stats_.generation = sealed_.size();
}

SegmentedIndex::~SegmentedIndex() {
  stop_ = true;
  Wake();
  if (thread_.joinable()) thread_.join();
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
    CountIn(*document);
    documents_[document->id] = {document, nullptr, *segment, *at};
    return true;
  }
  return false;
}

void SegmentedIndex::Filled() {
  {
    const MutexLock lock(writer_mutex_);
    for (const auto& segment : sealed_) segment->MakeFilterLists();
    rebuilding_ = !frozen_.empty();
    Publish();
  }
  if (options_.background) thread_ = std::thread([this] { Run(); });
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
  for (const auto& segment : frozen_) view->growing.push_back({segment, segment->Take()});
  view->growing.push_back({growing_, growing_->Take()});
  view->sealed = {sealed_.begin(), sealed_.end()};
  const MutexLock lock(view_mutex_);
  view_ = std::move(view);
}

void SegmentedIndex::Apply(std::vector<IndexChange> changes, const shardpb::Position& position) {
  bool due = false;
  {
    const MutexLock lock(writer_mutex_);
    ++step_;
    position_ = position;
    for (IndexChange& change : changes) {
      if (change.document == nullptr) {
        Remove(change.document_id);
      } else {
        Put(std::move(change));
      }
    }
    EmptySparseBlock();
    if (growing_->live_rows() >= options_.settings.seal_rows) Freeze();
    Publish();
    due = WorkIsDue();
  }
  if (due) Wake();
}

// Rows that a document keeps move into the growing segment with it: sealed ones know it only as it was.
void SegmentedIndex::Put(IndexChange change) {
  const auto old = documents_.find(change.document_id);
  if (change.vectors.empty() && old != documents_.end()) change.vectors = VectorsAt(old->second);
  const uint64_t first_row = growing_->Append(change.document, change.vectors);
  Remove(change.document_id);
  CountIn(*change.document);
  documents_[change.document_id] = {std::move(change.document), growing_, nullptr, first_row};
}

void SegmentedIndex::Freeze() {
  frozen_.push_back(std::exchange(growing_, std::make_shared<GrowingSegment>(dimension_, options_.block_rows)));
}

void SegmentedIndex::CountIn(const IndexedDocument& document) {
  ++stats_.documents;
  stats_.chunks += document.chunk_count;
  stats_.text_bytes += document.text_bytes;
  document_bytes_ += MemoryBytes(document);
}

void SegmentedIndex::Remove(const std::string& document_id) {
  const auto it = documents_.find(document_id);
  if (it == documents_.end()) return;
  RemoveRows(it->second);
  --stats_.documents;
  stats_.chunks -= it->second.document->chunk_count;
  stats_.text_bytes -= it->second.document->text_bytes;
  document_bytes_ -= MemoryBytes(*it->second.document);
  documents_.erase(it);
}

void SegmentedIndex::RemoveRows(const Place& place) {
  if (place.sealed != nullptr) {
    place.sealed->Remove(static_cast<uint32_t>(place.at), step_);
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
  if (growing_->GiveUpEmptyBlocks()) ++stats_.generation;
}

// ---------------------------------------------------------------- reading

absl::StatusOr<IndexAnswer> SegmentedIndex::Search(std::span<const IndexQuery> queries,
                                                   const IndexSearchOptions& options,
                                                   const CallContext& context) const {
  const std::shared_ptr<const View> view = CurrentView();
  const SegmentSearch search = {queries, options, view->step, context};
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

std::vector<std::string> SegmentedIndex::MatchingDocuments(const CompiledFilter& filter) const {
  const std::shared_ptr<const View> view = CurrentView();
  std::vector<std::string> ids;
  const auto take = [&](const IndexedDocument& document) { ids.push_back(document.id); };
  for (const View::Growing& growing : view->growing) {
    growing.segment->Visit(growing.rows, view->step, &filter, [&](const auto& document, uint64_t) { take(*document); });
  }
  for (const auto& segment : view->sealed) segment->VisitMatching(filter, view->step, take);
  return ids;
}

IndexStats SegmentedIndex::Stats() const {
  const MutexLock lock(writer_mutex_);
  IndexStats stats = stats_;
  for (const auto& segment : sealed_) stats.segments.push_back(segment->Size());
  for (const auto& segment : frozen_) stats.segments.push_back(segment->Size());
  stats.segments.push_back(growing_->Size());
  stats.document_bytes = document_bytes_ + documents_.capacity() * (sizeof(*documents_.begin()) + 1);
  if (rebuilding_) {
    stats.state = pb::INDEX_STATE_REBUILDING;
  } else if (!sealed_.empty()) {
    stats.state = pb::INDEX_STATE_READY;
  } else {
    stats.state = building_ ? pb::INDEX_STATE_TRAINING : pb::INDEX_STATE_EXACT;
    stats.measured_recall = 1;
  }
  return stats;
}

}  // namespace retro
