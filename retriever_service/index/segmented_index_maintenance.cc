// Sealing, merging and measuring: the half of SegmentedIndex that runs in the background.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/error.h"
#include "common/base/heap.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/index/segmented_index.h"

namespace retro {
namespace {

// So many segments of one size make one of the next: each vector is written again log4(size / seal_rows) times.
constexpr size_t kMergeSegments = 4;
// A segment of which more than 1 / kDeadDivisor is gone is written again without it.
constexpr uint64_t kDeadDivisor = 4;
constexpr std::chrono::seconds kRetryAfter{30};     // a failure, as of a full disk
constexpr std::chrono::milliseconds kLookEvery{5};  // of who waits for the background
constexpr uint32_t kRecallQueries = 64;
constexpr uint32_t kRecallK = 10;
constexpr float kRecallEffort = 0.5;
constexpr uint64_t kGrowthDivisor = 10;

// 0 below 4 * seal_rows, 1 below 16 * seal_rows, and so on.
int SizeClass(uint64_t rows, uint64_t seal_rows) {
  int size_class = 0;
  while ((rows /= kMergeSegments) >= seal_rows) ++size_class;
  return size_class;
}

}  // namespace

// Segments that one new one shall replace.
struct SegmentedIndex::Work {
  struct Source {
    std::shared_ptr<const IndexedDocument> document;
    std::string_view vectors;  // half precision
  };

  std::shared_ptr<GrowingSegment> frozen;  // this, or these
  std::vector<std::shared_ptr<SealedSegment>> merged;
  std::vector<std::shared_ptr<SealedSegment>> kept;  // all other sealed ones
  shardpb::Position position;
  std::deque<std::string> room;  // what vectors of `frozen` are copied to if they lie in two blocks
  std::vector<Source> sources;   // in the order of chunk ids
};

// ---------------------------------------------------------------- choosing

bool SegmentedIndex::WorkIsDue() const { return !frozen_.empty() || !ChooseMerge().empty(); }

std::vector<std::shared_ptr<SealedSegment>> SegmentedIndex::ChooseMerge() const {
  std::map<int, std::vector<std::shared_ptr<SealedSegment>>> by_size;
  for (const auto& segment : sealed_) {
    const uint64_t rows = segment->info().rows();
    if (rows - segment->live_rows() > rows / kDeadDivisor) return {segment};
    by_size[SizeClass(segment->live_rows(), options_.settings.seal_rows)].push_back(segment);
  }
  for (const auto& [size_class, segments] : by_size) {
    if (segments.size() >= kMergeSegments) return segments;
  }
  return {};
}

std::optional<SegmentedIndex::Work> SegmentedIndex::TakeWork() {
  const MutexLock lock(writer_mutex_);
  Work work;
  work.position = position_;
  if (frozen_.empty()) {
    work.merged = ChooseMerge();
  } else {
    work.frozen = frozen_.front();
  }
  if (work.frozen == nullptr && work.merged.empty()) return std::nullopt;
  for (const auto& segment : sealed_) {
    if (std::find(work.merged.begin(), work.merged.end(), segment) == work.merged.end()) work.kept.push_back(segment);
  }
  building_ = true;
  return work;
}

// ---------------------------------------------------------------- carrying out

// What goes while this runs is noticed by Install.
void SegmentedIndex::Gather(Work& work) const {
  if (work.frozen != nullptr) {
    std::string room;
    const auto take = [&](const std::shared_ptr<const IndexedDocument>& document, uint64_t first_row) {
      std::string_view vectors = work.frozen->VectorsOf(first_row, document->chunk_count, room);
      if (!room.empty()) vectors = work.room.emplace_back(std::move(room));
      work.sources.push_back({document, vectors});
    };
    work.frozen->Visit(work.frozen->Take(), kNewestStep, /*filter=*/nullptr, take);
  }
  for (const auto& segment : work.merged) {
    for (uint32_t at = 0; at < segment->documents(); ++at) {
      if (auto document = segment->DocumentAt(at, kNewestStep)) {
        work.sources.push_back({document, segment->VectorsOf(at)});
      }
    }
  }
  std::sort(work.sources.begin(), work.sources.end(), [](const Work::Source& a, const Work::Source& b) {
    return a.document->first_chunk_id < b.document->first_chunk_id;
  });
}

absl::Status SegmentedIndex::CarryOut(Work& work) {
  const auto start = std::chrono::steady_clock::now();
  Gather(work);
  std::shared_ptr<SealedSegment> made;
  std::vector<std::shared_ptr<SealedSegment>> segments = work.kept;
  if (!work.sources.empty()) {
    std::vector<SegmentContent> content;
    content.reserve(work.sources.size());
    for (const Work::Source& source : work.sources) {
      content.push_back({source.document->first_chunk_id, source.vectors});
    }
    RETRO_ASSIGN_OR_RETURN(made, folder_.Write(content, work.position, options_.settings.threads, stop_));
    for (uint32_t at = 0; at < made->documents(); ++at) made->Name(at, work.sources[at].document);
    made->MakeFilterLists();
    segments.push_back(made);
  }
  RETRO_RETURN_IF_ERROR(folder_.Commit(segments));
  Install(work, made, std::move(segments));
  if (made != nullptr) {
    spdlog::info("{} {}: {} vectors, {:.1f} s", work.frozen != nullptr ? "sealed" : "merged", made->Size().kind,
                 made->info().rows(), std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return absl::OkStatus();
}

// The new segment in the place of the old, as one step. A document that was replaced or removed since it was gathered
// is another one now, or none, and its rows stay removed.
void SegmentedIndex::Install(const Work& work, const std::shared_ptr<SealedSegment>& made,
                             std::vector<std::shared_ptr<SealedSegment>> segments) {
  const MutexLock lock(writer_mutex_);
  for (uint32_t at = 0; at < work.sources.size(); ++at) {
    const std::shared_ptr<const IndexedDocument>& document = work.sources[at].document;
    const auto it = documents_.find(document->id);
    if (it == documents_.end() || it->second.document != document) continue;
    made->Attach(at);
    it->second = {document, nullptr, made, at};
  }
  sealed_ = std::move(segments);
  if (work.frozen != nullptr) frozen_.pop_front();
  building_ = false;
  if (frozen_.empty()) rebuilding_ = false;
  ++stats_.generation;
  Publish();
}

absl::StatusOr<bool> SegmentedIndex::Maintain() {
  std::optional<Work> work = TakeWork();
  if (!work.has_value()) {
    if (!RecallIsDue()) return false;
    RETRO_RETURN_IF_ERROR(MeasureRecall());
    return true;
  }
  absl::Status status = CarryOut(*work);
  if (!status.ok()) {
    const MutexLock lock(writer_mutex_);
    building_ = false;
    return status;
  }
  return true;
}

// ---------------------------------------------------------------- recall

// Comparing with everything takes as long as the index is large: only when it is a tenth larger or smaller than then.
bool SegmentedIndex::RecallIsDue() const {
  const MutexLock lock(writer_mutex_);
  const uint64_t change = std::max(stats_.chunks, measured_chunks_) - std::min(stats_.chunks, measured_chunks_);
  return !sealed_.empty() && change >= std::max<uint64_t>(1, stats_.chunks / kGrowthDivisor);
}

// Looks for stored chunks, their own documents left out, as a text that goes on like them would.
absl::Status SegmentedIndex::MeasureRecall() {
  std::vector<std::vector<float>> vectors;
  std::vector<std::string> ids;
  const auto dimension = static_cast<size_t>(dimension_);
  {
    const MutexLock lock(writer_mutex_);
    measured_chunks_ = stats_.chunks;
    for (const auto& [id, place] : documents_) {  // in the order of a hash: any are as good as others
      if (ids.size() == kRecallQueries) break;
      FromHalf(std::string_view(VectorsAt(place)).substr(0, dimension * kHalfBytes), vectors.emplace_back(dimension));
      ids.push_back(id);
    }
  }
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

absl::Status SegmentedIndex::WaitForMaintenance(size_t frozen_max, absl::Duration most) const {
  const absl::Time end = absl::Now() + most;
  while (true) {
    {
      const MutexLock lock(writer_mutex_);
      if (frozen_max > 0 ? frozen_.size() <= frozen_max : !building_ && !WorkIsDue()) return absl::OkStatus();
    }
    {
      const MutexLock lock(wake_mutex_);
      RETRO_RETURN_IF_ERROR(maintained_);
    }
    if (absl::Now() >= end) return absl::DeadlineExceededError("the index is behind with sealing");
    std::this_thread::sleep_for(kLookEvery);
  }
}

// ---------------------------------------------------------------- the thread

void SegmentedIndex::Wake() {
  const MutexLock lock(wake_mutex_);
  awake_ = true;
  wake_.NotifyOne();
}

void SegmentedIndex::Run() {
  while (!stop_) {
    const absl::StatusOr<bool> did = Maintain();
    {
      const MutexLock lock(wake_mutex_);
      maintained_ = did.status();
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
      while (!awake_) wake_.Wait(wake_mutex_);
    } else {
      while (!stop_ && wake_.WaitUntil(wake_mutex_, retry)) {
      }
    }
    awake_ = false;
  }
}

}  // namespace retro
