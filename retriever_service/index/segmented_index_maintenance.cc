// Sealing, merging and measuring: the half of SegmentedIndex that runs in the background.
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/error.h"
#include "common/base/heap.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/index/build_memory.h"
#include "retriever_service/index/segmented_index.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

// So many of one level's cells make one of the next: each vector is written again log4(size / seal_rows) times.
constexpr int kMergeBits = 2;
// A segment of which more than 1 / kDeadDivisor is gone is written again without it.
constexpr uint64_t kDeadDivisor = 4;
constexpr std::chrono::seconds kRetryAfter{30};     // a failure, as of a full disk
constexpr std::chrono::milliseconds kLookEvery{5};  // of who waits for the background
constexpr uint32_t kRecallQueries = 64;
constexpr uint32_t kRecallK = 10;
constexpr float kRecallEffort = 0.5;
constexpr uint64_t kChangeDivisor = 10;
// What a second thread merges while the first one is busy for long.
constexpr uint64_t kFewCells = 16;
constexpr int kBackgroundNice = 10;  // a tenth of a searching thread's share, where they compete
constexpr uint64_t kAnyCells = std::numeric_limits<uint64_t>::max();

}  // namespace

// Segments that one new one shall replace.
struct SegmentedIndex::Work {
  std::shared_ptr<GrowingSegment> frozen;  // this, or these
  std::vector<std::shared_ptr<SealedSegment>> merged;
  std::optional<uint64_t> step;         // what they had then; not known yet of one of which much is gone
  uint64_t complete_step = 0;           // of the new one
  shardpb::IndexSegment about;          // position and last cell
  std::deque<std::string> room;         // what vectors of `frozen` are copied to if they lie in two blocks
  std::vector<SegmentContent> content;  // in the order of chunk ids

  bool empty() const { return frozen == nullptr && merged.empty(); }
  // The step that removed a document of the content.
  uint64_t RemovedAt(const SegmentContent& document) const {
    if (frozen != nullptr) return frozen->RemovedAt(document.source);
    return merged[document.source >> kNumberBits]->RemovedAt(static_cast<uint32_t>(document.source));
  }
  void Remove(const SegmentContent& document, uint64_t removed_at) const {
    if (frozen != nullptr) return frozen->Remove(document.source, document.document->chunk_count, removed_at);
    merged[document.source >> kNumberBits]->Remove(static_cast<uint32_t>(document.source), removed_at);
  }
  static constexpr int kNumberBits = 32;
};

// ---------------------------------------------------------------- choosing

uint64_t SegmentedIndex::LastCellOf(const SealedSegment& segment) const {
  return segment.info().has_last_cell() ? segment.info().last_cell() : CellOf(segment.last_chunk_id() >> kSlotBits);
}

bool SegmentedIndex::WorkIsDue() const { return !frozen_.empty() || !ChooseMerge(kAnyCells).empty(); }

// The largest run of cells that is complete, in more than one segment and not being merged; else a segment with much
// that is gone.
SegmentedIndex::Work SegmentedIndex::ChooseMerge(uint64_t cells_max) const {
  Work work;
  const uint64_t complete = frozen_.empty() ? cell_ : std::min(cell_, frozen_.front().cell);
  const auto is_free = [&](const auto& segment) { return !being_merged_.contains(segment.get()); };
  int bits = 0;
  while (complete >> (bits + kMergeBits) > 0 && uint64_t{1} << (bits + kMergeBits) <= cells_max) bits += kMergeBits;
  for (; bits > 0 && work.empty(); bits -= kMergeBits) {
    std::map<uint64_t, std::vector<std::shared_ptr<SealedSegment>>> runs;
    for (const auto& segment : sealed_) runs[LastCellOf(*segment) >> bits].push_back(segment);
    for (auto& [run, segments] : runs) {
      if ((run + 1) << bits > complete || segments.size() < 2 || !std::ranges::all_of(segments, is_free)) continue;
      work.merged = std::move(segments);
      break;
    }
  }
  for (auto segment = sealed_.begin(); segment != sealed_.end() && work.empty(); ++segment) {
    const bool is_small = (*segment)->info().rows() / options_.settings.seal_rows <= cells_max;
    if (is_small && is_free(*segment) && (*segment)->IsMuchGone(kDeadDivisor)) work.merged = {*segment};
  }
  for (const auto& segment : work.merged) {
    work.complete_step = std::max(work.complete_step, segment->complete_step());
    work.about.set_last_cell(std::max(work.about.last_cell(), LastCellOf(*segment)));
  }
  if (work.merged.size() > 1) work.step = work.complete_step;
  return work;
}

std::optional<SegmentedIndex::Work> SegmentedIndex::TakeMerge(uint64_t cells_max) {
  const MutexLock lock(writer_mutex_);
  Work work = ChooseMerge(cells_max);
  if (work.empty()) return std::nullopt;
  *work.about.mutable_position() = position_;
  for (const auto& segment : work.merged) being_merged_.insert(segment.get());
  ++building_;
  return work;
}

std::optional<SegmentedIndex::Work> SegmentedIndex::TakeSeal() {
  const MutexLock lock(writer_mutex_);
  if (frozen_.empty()) return std::nullopt;
  Work work;
  *work.about.mutable_position() = position_;
  work.about.set_last_cell(frozen_.front().cell);
  work.frozen = frozen_.front().segment;
  work.step = work.complete_step = frozen_.front().step;
  ++building_;
  return work;
}

// ---------------------------------------------------------------- carrying out

void SegmentedIndex::Gather(Work& work) const {
  if (work.frozen != nullptr) {
    std::string room;
    const auto take = [&](const std::shared_ptr<const IndexedDocument>& document, uint64_t first_row) {
      std::string_view vectors = work.frozen->VectorsOf(first_row, document->chunk_count, room);
      if (!room.empty()) vectors = work.room.emplace_back(std::move(room));
      work.content.push_back({document, vectors, first_row});
    };
    work.frozen->Visit(work.frozen->Take(), *work.step, /*filter=*/nullptr, take);
  }
  if (!work.step.has_value()) work.step = work.merged[0]->StepWhenGone(kDeadDivisor);
  size_t most = 0;
  for (const auto& segment : work.merged) most += segment->documents();
  work.content.reserve(std::max(most, work.content.size()));
  for (size_t i = 0; i < work.merged.size(); ++i) {
    const SealedSegment& segment = *work.merged[i];
    for (uint32_t at = 0; at < segment.documents(); ++at) {
      auto document = segment.DocumentAt(at, *work.step);
      if (document != nullptr) {
        work.content.push_back({std::move(document), segment.VectorsOf(at), uint64_t{i} << Work::kNumberBits | at});
      }
    }
  }
  std::sort(work.content.begin(), work.content.end(), [](const SegmentContent& a, const SegmentContent& b) {
    return a.document->first_chunk_id < b.document->first_chunk_id;
  });
}

absl::Status SegmentedIndex::Make(Work& work) {
  const auto start = std::chrono::steady_clock::now();
  Gather(work);
  BuildMemory memory(building_bytes_);
  memory.Set(work.content.capacity() * sizeof(SegmentContent));
  std::shared_ptr<SealedSegment> made;
  if (!work.content.empty()) {
    RETRO_ASSIGN_OR_RETURN(made,
                           folder_.Write(work.content, work.about, options_.settings.threads, stop_, building_bytes_));
    for (uint32_t at = 0; at < made->documents(); ++at) made->Name(at, work.content[at].document);
    made->MakeFilterLists();
    made->set_complete_step(work.complete_step);
  }
  RETRO_RETURN_IF_ERROR(folder_.Commit(made.get(), work.merged));
  Install(work, made);
  if (made != nullptr) {
    spdlog::info("{} {}: {} vectors, {:.1f} s", work.frozen != nullptr ? "sealed" : "merged", made->Size().kind,
                 made->info().rows(), std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return absl::OkStatus();
}

absl::Status SegmentedIndex::CarryOut(std::optional<Work> work) {
  const absl::Status status = Make(*work);
  const MutexLock lock(writer_mutex_);
  for (const auto& segment : work->merged) being_merged_.erase(segment.get());
  --building_;
  return status;
}

// The new segment in the place of the old. Its documents are moved some at a time, and changes pass in between; then,
// as one step, searches see it and the old no more.
void SegmentedIndex::Install(const Work& work, const std::shared_ptr<SealedSegment>& made) {
  constexpr std::chrono::microseconds kPause{100};  // who takes a lock again at once leaves those who wait behind
  for (size_t begin = 0, end = 0; begin < work.content.size(); begin = end) {
    if (begin > 0) std::this_thread::sleep_for(kPause);
    end = std::min(work.content.size(), begin + options_.moved_at_once);
    Move(work, begin, end, made);
  }
  const MutexLock lock(writer_mutex_);
  arriving_.erase(made.get());
  std::erase_if(sealed_, [&](const std::shared_ptr<SealedSegment>& segment) {
    return std::find(work.merged.begin(), work.merged.end(), segment) != work.merged.end();
  });
  if (made != nullptr) sealed_.push_back(made);
  std::sort(sealed_.begin(), sealed_.end(),
            [](const auto& a, const auto& b) { return a->info().number() < b->info().number(); });
  if (work.frozen != nullptr) frozen_.pop_front();
  if (frozen_.empty()) rebuilding_ = false;
  ++stats_.generation;
  Publish();
}

// What was removed from the old ones since it was gathered is removed from the new one as of then. What was moved, and
// is removed before searches see the new one, is removed from both: see RemoveFromReplaced.
void SegmentedIndex::Move(const Work& work, size_t begin, size_t end, const std::shared_ptr<SealedSegment>& made) {
  const MutexLock lock(writer_mutex_);
  arriving_[made.get()] = &work;
  for (size_t at = begin; at < end; ++at) {
    const SegmentContent& content = work.content[at];
    const uint64_t removed_at = work.RemovedAt(content);
    if (removed_at != kNeverRemoved) {
      made->Remove(static_cast<uint32_t>(at), removed_at);
      continue;
    }
    made->Attach(static_cast<uint32_t>(at));
    documents_.at(content.document->id) = {content.document, nullptr, made, at};
  }
}

// Nothing, unless the document was moved to a segment that searches do not see yet.
void SegmentedIndex::RemoveFromReplaced(const Place& place) {
  const auto arriving = arriving_.find(place.sealed.get());
  if (arriving == arriving_.end()) return;
  const Work& work = *arriving->second;
  work.Remove(work.content[place.at], step_);
}

absl::StatusOr<bool> SegmentedIndex::Seal() {
  std::optional<Work> work = TakeSeal();
  if (!work.has_value()) return false;
  RETRO_RETURN_IF_ERROR(CarryOut(std::move(work)));
  Wake();  // there may be something to merge
  return true;
}

absl::StatusOr<bool> SegmentedIndex::MergeFew() {
  std::optional<Work> work = TakeMerge(kFewCells);
  if (!work.has_value()) return false;
  RETRO_RETURN_IF_ERROR(CarryOut(std::move(work)));
  Wake();  // it may complete a larger run
  return true;
}

absl::StatusOr<bool> SegmentedIndex::MergeOrMeasure() {
  std::optional<Work> work = TakeMerge(kAnyCells);
  if (!work.has_value() && !RecallIsDue()) return false;
  RETRO_RETURN_IF_ERROR(work.has_value() ? CarryOut(std::move(work)) : MeasureRecall());
  return true;
}

absl::StatusOr<bool> SegmentedIndex::Maintain() {
  RETRO_ASSIGN_OR_RETURN(const bool sealed, Seal());
  return sealed ? true : MergeOrMeasure();
}

// ---------------------------------------------------------------- recall

// Comparing with everything takes as long as the index is large: only when a tenth of it is another than then.
bool SegmentedIndex::RecallIsDue() const {
  const MutexLock lock(writer_mutex_);
  return !sealed_.empty() && changed_chunks_ >= std::max<uint64_t>(1, stats_.chunks / kChangeDivisor);
}

// The first vectors of some documents. Sealed ones are read without the lock: they may have to come from the disk.
std::vector<std::vector<float>> SegmentedIndex::SampleDocuments(std::vector<std::string>& ids) {
  std::vector<std::string_view> halves;
  std::vector<std::shared_ptr<SealedSegment>> sealed;
  std::deque<std::string> copied;
  {
    const MutexLock lock(writer_mutex_);
    changed_chunks_ = 0;
    for (const auto& [id, place] : documents_) {  // in the order of a hash: any are as good as others
      if (ids.size() == kRecallQueries) break;
      ids.push_back(id);
      if (place.sealed != nullptr) {
        halves.push_back(place.sealed->VectorsOf(static_cast<uint32_t>(place.at)));
        sealed.push_back(place.sealed);
      } else {
        std::string room;
        halves.push_back(copied.emplace_back(place.growing->VectorsOf(place.at, 1, room)));
      }
    }
  }
  const auto dimension = static_cast<size_t>(dimension_);
  std::vector<std::vector<float>> vectors;
  vectors.reserve(halves.size());
  for (const std::string_view half : halves) {
    FromHalf(half.substr(0, dimension * kHalfBytes), vectors.emplace_back(dimension));
  }
  return vectors;
}

// Looks for stored chunks, their own documents left out, as a text that goes on like them would.
absl::Status SegmentedIndex::MeasureRecall() {
  std::vector<std::string> ids;
  const std::vector<std::vector<float>> vectors = SampleDocuments(ids);
  if (ids.empty()) return absl::OkStatus();
  std::vector<IndexQuery> queries;
  queries.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    queries.push_back({vectors[i], {ids[i]}});
  }
  CallContext context;
  context.cancelled = [this] { return stop_.load(std::memory_order_relaxed); };
  RETRO_ASSIGN_OR_RETURN(const IndexAnswer exact, Search(queries, {.k = kRecallK}, context));
  RETRO_ASSIGN_OR_RETURN(const IndexAnswer found, Search(queries, {.k = kRecallK, .effort = kRecallEffort}, context));
  uint64_t wanted = 0, got = 0;
  for (size_t q = 0; q < queries.size(); ++q) {
    if (exact.hits[q].empty()) continue;
    const float worst = exact.hits[q].back().distance;  // of equal distance any is right
    wanted += exact.hits[q].size();
    got += std::count_if(found.hits[q].begin(), found.hits[q].end(),
                         [&](const IndexHit& hit) { return hit.distance <= worst; });
  }
  const MutexLock lock(writer_mutex_);
  stats_.measured_recall = wanted == 0 ? 1 : static_cast<float>(got) / static_cast<float>(wanted);
  return absl::OkStatus();
}

uint64_t SegmentedIndex::SealGrowing() {
  uint64_t step = 0;
  {
    const MutexLock lock(writer_mutex_);
    step = step_;
    if (growing_->live_rows() == 0) return step;
    Freeze();
    Publish();
  }
  Wake();
  return step;
}

absl::Status SegmentedIndex::WaitForSealing(uint64_t step, absl::Duration most) const {
  const auto is_sealed = [this, step] {
    const MutexLock lock(writer_mutex_);
    return frozen_.empty() || frozen_.front().step > step;
  };
  return WaitUntil(is_sealed, kSealer + 1, most);
}

absl::Status SegmentedIndex::WaitForMaintenance(size_t frozen_max, absl::Duration most) const {
  const auto is_done = [this, frozen_max] {
    const MutexLock lock(writer_mutex_);
    return frozen_max > 0 ? frozen_.size() <= frozen_max : building_ == 0 && !WorkIsDue();
  };
  return WaitUntil(is_done, frozen_max > 0 ? kSealer + 1 : kWorkers, most);
}

absl::Status SegmentedIndex::WaitUntil(const std::function<bool()>& holds, size_t workers, absl::Duration most) const {
  const absl::Time end = absl::Now() + most;
  while (!holds()) {
    {
      const MutexLock lock(wake_mutex_);
      for (size_t i = 0; i < workers; ++i) RETRO_RETURN_IF_ERROR(workers_[i].status);
    }
    if (absl::Now() >= end) return absl::DeadlineExceededError("the index is behind with sealing");
    std::this_thread::sleep_for(kLookEvery);
  }
  return absl::OkStatus();
}

// ---------------------------------------------------------------- the thread

void SegmentedIndex::Wake() {
  const MutexLock lock(wake_mutex_);
  for (Worker& worker : workers_) worker.awake = true;
  wake_.NotifyAll();
}

void SegmentedIndex::Run(size_t worker, absl::StatusOr<bool> (SegmentedIndex::*piece)()) {
  setpriority(PRIO_PROCESS, /*this thread*/ 0, kBackgroundNice);  // advice: searches go first
  while (!stop_) {
    const absl::StatusOr<bool> did = (this->*piece)();
    {
      const MutexLock lock(wake_mutex_);
      workers_[worker].status = did.status();
    }
    if (did.ok() && *did) {
      GiveFreedMemoryBack();
      continue;
    }
    if (!did.ok() && !stop_)
      spdlog::warn("the index of {} stays as it is: {}", options_.folder, MessageOf(did.status()));
    const auto retry = std::chrono::steady_clock::now() + kRetryAfter;
    const MutexLock lock(wake_mutex_);
    if (did.ok()) {
      while (!workers_[worker].awake) wake_.Wait(wake_mutex_);
    } else {
      while (!stop_ && wake_.WaitUntil(wake_mutex_, retry)) {
      }
    }
    workers_[worker].awake = false;
  }
}

}  // namespace retro
