#include "retriever_service/index/sealed_segment.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/index/half_distance.h"
#include "retriever_service/index/index_file.h"
#include "retriever_service/index/tuning.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

static_assert(std::endian::native == std::endian::little, "the documents file is mapped as it is");

constexpr uint32_t kTileRows = 64;                     // compared with all queries while they are in the cache
constexpr uint64_t kWorkACheck = 2048;                 // distances and documents between two looks at who waits
constexpr size_t kQueriesAtOnce = 64;                  // to the lists
constexpr size_t kCandidatesAtOnce = size_t{1} << 20;  // of these queries together: bounds the memory
constexpr size_t kPrefetchAhead = 4;                   // candidates
constexpr size_t kCacheLineBytes = 64;
constexpr uint32_t kShareSample = 4096;  // documents, of which a filter's selectivity is estimated
constexpr uint64_t kRowsAMark = 64;      // of what says where documents begin

// Not multiplied: a count of the manifest may be any number.
bool Holds(const MappedFile& file, uint64_t count, size_t bytes_each) {
  return file.bytes().size() % bytes_each == 0 && file.bytes().size() / bytes_each == count;
}

std::span<const SealedDocument> AsTable(std::string_view bytes) {
  return {reinterpret_cast<const SealedDocument*>(bytes.data()), bytes.size() / sizeof(SealedDocument)};
}

}  // namespace

SegmentPaths PathsOfSegment(const std::string& folder, uint64_t number) {
  const std::string stem = StrCat(folder, "/", number);
  return {stem + ".vectors", stem + ".documents", stem + ".lists"};
}

// ---------------------------------------------------------------- opening

SealedSegment::SealedSegment(shardpb::IndexSegment info, int dimension, MappedFile vectors, MappedFile documents)
    : info_(std::move(info)),
      dimension_(dimension),
      vectors_(std::move(vectors)),
      documents_(std::move(documents)),
      table_(AsTable(documents_.bytes())),
      entries_(info_.documents()) {}

absl::StatusOr<std::shared_ptr<SealedSegment>> SealedSegment::Open(const std::string& folder,
                                                                   const shardpb::IndexSegment& info, int dimension) {
  const SegmentPaths paths = PathsOfSegment(folder, info.number());
  RETRO_ASSIGN_OR_RETURN(MappedFile documents, MapWhole(paths.documents, info.documents_file()));
  RETRO_ASSIGN_OR_RETURN(MappedFile vectors, MapWhole(paths.vectors, info.vectors_file()));
  if (!Holds(documents, info.documents(), sizeof(SealedDocument)) ||
      !Holds(vectors, info.rows(), size_t(dimension) * kHalfBytes)) {
    return absl::DataLossError(
        StrCat("the files of segment ", info.number(), " in ", folder, " do not fit each other"));
  }
  std::shared_ptr<SealedSegment> segment(new SealedSegment(info, dimension, std::move(vectors), std::move(documents)));
  RETRO_RETURN_IF_ERROR(segment->CheckDocuments());
  if (info.kind().empty()) return segment;
  RETRO_ASSIGN_OR_RETURN(const MappedFile lists, MapWhole(paths.lists, info.lists_file()));
  RETRO_ASSIGN_OR_RETURN(segment->lists_, QuantisedLists::Parse(lists.bytes(), dimension, info.rows()));
  segment->MakeMarks();
  return segment;
}

absl::Status SealedSegment::CheckDocuments() {
  const auto follows = [](const SealedDocument& a, const SealedDocument& b) {
    return a.first_chunk_id < b.first_chunk_id && a.first_row < b.first_row;
  };
  bool whole = !table_.empty() && table_.front().first_row == 0 && table_.back().first_row < info_.rows();
  for (size_t i = 1; i < table_.size(); ++i) whole = whole && follows(table_[i - 1], table_[i]);
  if (whole) return absl::OkStatus();
  return absl::DataLossError(StrCat("the documents of segment ", info_.number(), " are not in order"));
}

void SealedSegment::MakeMarks() {
  marks_.reserve(info_.rows() / kRowsAMark + 1);
  for (uint32_t at = 0; at < documents(); ++at) {
    while (marks_.size() * kRowsAMark < FirstRow(at + 1)) marks_.push_back(at);
  }
}

// ---------------------------------------------------------------- documents

uint32_t SealedSegment::DocumentOfRow(uint64_t row) const {
  const uint64_t mark = row / kRowsAMark;
  const auto first = table_.begin() + marks_[mark];
  const auto last = mark + 1 < marks_.size() ? table_.begin() + marks_[mark + 1] + 1 : table_.end();
  const auto after = std::upper_bound(
      first, last, row, [](uint64_t wanted, const SealedDocument& document) { return wanted < document.first_row; });
  return static_cast<uint32_t>(after - table_.begin()) - 1;
}

std::optional<uint32_t> SealedSegment::Find(uint64_t first_chunk_id, uint32_t chunk_count) const {
  const auto it =
      std::lower_bound(table_.begin(), table_.end(), first_chunk_id,
                       [](const SealedDocument& document, uint64_t id) { return document.first_chunk_id < id; });
  if (it == table_.end() || it->first_chunk_id != first_chunk_id) return std::nullopt;
  const auto at = static_cast<uint32_t>(it - table_.begin());
  if (ChunkCount(at) != chunk_count) return std::nullopt;
  return at;
}

void SealedSegment::Name(uint32_t at, std::shared_ptr<const IndexedDocument> document) {
  entries_[at].document = std::move(document);
}

void SealedSegment::MakeFilterLists() {
  std::vector<const IndexedDocument*> documents;
  documents.reserve(entries_.size());
  for (const Entry& entry : entries_) documents.push_back(entry.document.get());
  filter_lists_.emplace(documents);
}

void SealedSegment::Attach(uint32_t at) {
  entries_[at].removed_at.store(kNeverRemoved, std::memory_order_relaxed);
  live_rows_.fetch_add(ChunkCount(at), std::memory_order_relaxed);
}

void SealedSegment::Remove(uint32_t at, uint64_t step) {
  if (entries_[at].removed_at.exchange(step, std::memory_order_relaxed) != kNeverRemoved) return;
  live_rows_.fetch_sub(ChunkCount(at), std::memory_order_relaxed);
}

uint64_t SealedSegment::StepWhenGone(uint64_t n) const {
  uint64_t rows = info_.rows(), gone = 0;
  std::map<uint64_t, uint64_t> removals;  // rows, by step
  for (uint32_t at = 0; at < documents(); ++at) {
    if (RemovedAt(at) != kNeverRemoved) removals[RemovedAt(at)] += ChunkCount(at);
  }
  uint64_t last = kRemovedBeforeAll;
  for (const auto& [step, removed] : removals) {
    gone += removed;
    if (gone <= rows / n) continue;
    last = step;
    rows -= std::exchange(gone, 0);
  }
  return last;
}

std::shared_ptr<const IndexedDocument> SealedSegment::DocumentAt(uint32_t at, uint64_t step) const {
  if (IsRemoved(at, step)) return nullptr;
  return entries_[at].document;
}

absl::StatusOr<bool> SealedSegment::VisitMatching(const CompiledFilter& filter, uint64_t step,
                                                  const CallContext& context,
                                                  const std::function<bool(const IndexedDocument&)>& visit) const {
  RETRO_ASSIGN_OR_RETURN(const DocumentSet matching, filter_lists_->Matching(filter, context));
  bool goes_on = true;
  matching.ForEach([&](uint32_t at) {
    if (!IsRemoved(at, step)) goes_on = visit(*entries_[at].document);
    return goes_on;
  });
  return goes_on;
}

std::string_view SealedSegment::VectorAt(uint64_t row) const {
  const size_t bytes = size_t(dimension_) * kHalfBytes;
  return vectors_.bytes().substr(row * bytes, bytes);
}

void SealedSegment::Prefetch(uint64_t row) const {
  const std::string_view vector = VectorAt(row);
  for (size_t byte = 0; byte < vector.size(); byte += kCacheLineBytes) __builtin_prefetch(vector.data() + byte);
}

std::string_view SealedSegment::VectorsOf(uint32_t at) const {
  const size_t bytes = size_t(dimension_) * kHalfBytes;
  return vectors_.bytes().substr(FirstRow(at) * bytes, ChunkCount(at) * bytes);
}

SegmentSize SealedSegment::Size() const {
  SegmentSize size{.kind = info_.kind().empty() ? "exact" : info_.kind(), .rows = info_.rows()};
  size.deleted = size.rows - live_rows();
  size.memory_bytes = entries_.size() * sizeof(Entry) + marks_.size() * sizeof(uint32_t);
  if (lists_ != nullptr) size.memory_bytes += lists_->memory_bytes();
  if (filter_lists_.has_value()) size.memory_bytes += filter_lists_->memory_bytes();
  return size;
}

// ---------------------------------------------------------------- every vector

// Compares some of a search's queries with all rows that they may find.
class SealedSegment::Scan {
 public:
  // `matching`: what the filter lets pass; null if there is none.
  Scan(const SealedSegment& segment, const SegmentSearch& search, const DocumentSet* matching,
       std::span<const size_t> queries, std::vector<TopK>& best)
      : segment_(segment), search_(search), matching_(matching), queries_(queries), best_(best) {}

  absl::Status Run() {
    const auto take = [this](uint32_t at) { return Take(at); };
    if (matching_ != nullptr) {
      matching_->ForEach(take);
    } else {
      for (uint32_t at = 0; at < segment_.documents() && take(at);) ++at;
    }
    if (status_.ok()) Compare();
    return status_;
  }

 private:
  // False once the caller has left.
  bool Take(uint32_t at) {
    ++work_;
    if (segment_.IsRemoved(at, search_.step)) return GoesOn();
    const Entry& entry = segment_.entries_[at];
    for (uint32_t i = 0; i < segment_.ChunkCount(at) && GoesOn(); ++i) {
      Take(entry, segment_.FirstRow(at) + i, ChunkIdAt(entry.document->first_chunk_id, i));
    }
    return status_.ok();
  }

  // A document may have millions of rows, each of which is compared with hundreds of queries.
  bool GoesOn() {
    if (work_ >= kWorkACheck) {
      work_ = 0;
      status_ = search_.context.Check();
    }
    return status_.ok();
  }

  void Take(const Entry& entry, uint64_t row, uint64_t chunk_id) {
    segment_.Prefetch(row);
    vectors_[count_] = segment_.VectorAt(row);
    documents_[count_] = &entry.document;
    chunk_ids_[count_] = chunk_id;
    if (++count_ == kTileRows) Compare();
  }

  void Compare() {
    for (const size_t q : queries_) {
      for (uint32_t i = 0; i < count_; ++i) {
        const float distance = SquaredDistance(search_.queries[q].vector, vectors_[i]);
        if (!best_[q].Wants(distance, chunk_ids_[i]) || search_.IsExcluded(q, **documents_[i])) continue;
        best_[q].Add({distance, chunk_ids_[i], documents_[i]});
      }
    }
    work_ += count_ * queries_.size();
    count_ = 0;
  }

  const SealedSegment& segment_;
  const SegmentSearch& search_;
  const DocumentSet* const matching_;
  const std::span<const size_t> queries_;
  std::vector<TopK>& best_;
  uint64_t work_ = kWorkACheck;  // since the last look; the first comes before any
  absl::Status status_;
  std::array<std::string_view, kTileRows> vectors_;
  std::array<uint64_t, kTileRows> chunk_ids_;
  std::array<const std::shared_ptr<const IndexedDocument>*, kTileRows> documents_;
  uint32_t count_ = 0;
};

// ---------------------------------------------------------------- by the lists

// Searches the lists for candidates and compares these with their stored vectors. Whatever a search may not find
// (removed, filtered away, left out) falls out of the candidates, so where too few are left it looks wider, and at last
// at every vector.
class SealedSegment::Probing {
 public:
  Probing(const SealedSegment& segment, const SegmentSearch& search, const DocumentSet* matching,
          std::vector<TopK>& best)
      : segment_(segment), search_(search), matching_(matching), best_(best) {}

  absl::Status Run(double share) {
    constexpr double kWidening = 4;
    std::vector<size_t> pending(search_.queries.size());
    std::iota(pending.begin(), pending.end(), 0);
    const double findable = share * static_cast<double>(segment_.info_.rows());
    Probe last = {};
    for (double wide = 1; !pending.empty(); wide *= kWidening) {
      const Probe probe = ProbeOf(share, wide);
      // It can find nothing else, or compares no fewer than all that there is to be found.
      if (probe == last || probe.candidates >= findable) break;
      std::vector<size_t> unsatisfied;
      const size_t at_once = std::clamp<size_t>(kCandidatesAtOnce / probe.candidates, 1, kQueriesAtOnce);
      for (size_t begin = 0; begin < pending.size(); begin += at_once) {
        RETRO_RETURN_IF_ERROR(search_.context.Check());
        const auto some = std::span(pending).subspan(begin, std::min(at_once, pending.size() - begin));
        RETRO_RETURN_IF_ERROR(Ask(some, probe, unsatisfied));
      }
      pending = std::move(unsatisfied);
      last = probe;
    }
    return pending.empty() ? absl::OkStatus() : Scan(segment_, search_, matching_, pending, best_).Run();
  }

 private:
  Probe ProbeOf(double share, double wide) const {
    constexpr double kCandidatesMax = 16'384;
    // Of who did not get k from them, as when a document is left out that has tens of thousands of chunks, all nearer
    // than any other's.
    constexpr double kWidestCandidatesMax = 262'144;
    const double part =
        static_cast<double>(segment_.live_rows()) / static_cast<double>(std::max<uint64_t>(1, search_.rows));
    Probe probe =
        ChooseProbe(*search_.options.effort, segment_.lists_->lists(), search_.options.k, std::min(1.0, part));
    // The k nearest of a share are as far as the k / share nearest of all: they lie in more lists.
    const double lists = probe.lists * wide / std::sqrt(share);
    probe.lists = static_cast<uint32_t>(std::min<double>(segment_.lists_->lists(), lists));
    const double candidates = std::min(kCandidatesMax, probe.candidates / share) * wide;
    const auto rows = static_cast<double>(segment_.info_.rows());
    probe.candidates = static_cast<uint32_t>(std::min({rows, kWidestCandidatesMax, candidates}));
    return probe;
  }

  absl::Status Ask(std::span<const size_t> queries, const Probe& probe, std::vector<size_t>& unsatisfied) {
    constexpr float kFarthest = 1e15F;  // whose squares' sum is within a float's range, as the lists want it
    std::vector<float> vectors;
    vectors.reserve(queries.size() * segment_.dimension_);
    for (const size_t q : queries) {
      for (const float x : search_.queries[q].vector) vectors.push_back(std::clamp(x, -kFarthest, kFarthest));
    }
    std::vector<int64_t> rows(queries.size() * probe.candidates);
    RETRO_RETURN_IF_ERROR(segment_.lists_->Search(vectors, probe.lists, probe.candidates, rows));
    for (size_t i = 0; i < queries.size(); ++i) {
      const auto candidates = std::span(rows).subspan(i * probe.candidates, probe.candidates);
      if (!ReRank(queries[i], candidates)) unsatisfied.push_back(queries[i]);
    }
    return absl::OkStatus();
  }

  // True if the query has got what the segment can give it: k hits, or the next one is too far to matter. Otherwise
  // nothing is added.
  bool ReRank(size_t q, std::span<const int64_t> candidates) {
    TopK found = search_.EmptyBest();
    bool reached_the_end = false;
    for (size_t i = 0; i < candidates.size(); ++i) {
      if (i + kPrefetchAhead < candidates.size() && candidates[i + kPrefetchAhead] >= 0) {
        segment_.Prefetch(candidates[i + kPrefetchAhead]);
      }
      const int64_t row = candidates[i];
      if (row < 0) continue;
      const float distance = SquaredDistance(search_.queries[q].vector, segment_.VectorAt(row));
      // Most are farther than k that are found; whose they are need not be known.
      if (found.best().size() == search_.options.k && distance > found.best().back().distance) continue;
      const uint32_t at = segment_.DocumentOfRow(row);
      if (!Allowed(q, at)) continue;
      const SealedDocument& document = segment_.table_[at];
      const uint64_t chunk_id = ChunkIdAt(document.first_chunk_id, row - document.first_row);
      const bool wanted = best_[q].Wants(distance, chunk_id);
      reached_the_end = reached_the_end || !wanted;
      if (wanted) found.Add({distance, chunk_id, &segment_.entries_[at].document});
    }
    if (!reached_the_end && found.best().size() < search_.options.k) return false;
    for (const Candidate& candidate : found.best()) best_[q].Add(candidate);
    return true;
  }

  bool Allowed(size_t q, uint32_t at) const {
    if (matching_ != nullptr && !matching_->Contains(at)) return false;
    return !segment_.IsRemoved(at, search_.step) && !search_.IsExcluded(q, *segment_.entries_[at].document);
  }

  const SealedSegment& segment_;
  const SegmentSearch& search_;
  const DocumentSet* const matching_;
  std::vector<TopK>& best_;
};

// ---------------------------------------------------------------- searching

double SealedSegment::FindableShare(uint64_t step, const DocumentSet* matching) const {
  if (matching == nullptr) return static_cast<double>(live_rows()) / static_cast<double>(info_.rows());
  // Of many, the first ones tell how many rows each has that is still there.
  uint64_t rows = 0;
  uint32_t looked_at = 0;
  matching->ForEach([&](uint32_t at) {
    if (!IsRemoved(at, step)) rows += ChunkCount(at);
    return ++looked_at < kShareSample;
  });
  const double each = static_cast<double>(rows) / std::max(looked_at, uint32_t{1});
  return each * matching->count() / static_cast<double>(info_.rows());
}

absl::Status SealedSegment::Search(const SegmentSearch& search, std::vector<TopK>& best) const {
  std::optional<DocumentSet> set;
  if (search.options.filter != nullptr) {
    RETRO_ASSIGN_OR_RETURN(DocumentSet found, filter_lists_->Matching(*search.options.filter, search.context));
    set.emplace(std::move(found));
  }
  const DocumentSet* const matching = set.has_value() ? &*set : nullptr;
  // Of documents that may not give k between them there is nothing to look for: it would end with the scan, unless
  // something else bounds what is wanted.
  const uint64_t documents = matching != nullptr ? matching->count() : table_.size();
  const uint64_t of_each = search.options.chunks_per_document_max;
  const bool is_bounded = search.options.max_distance.has_value() || std::ranges::all_of(best, [&](const TopK& found) {
                            return found.best().size() == search.options.k;
                          });
  const bool too_few = of_each > 0 && documents * of_each < search.options.k && !is_bounded;
  if (lists_ != nullptr && search.options.effort.has_value() && !too_few) {
    const double share = FindableShare(search.step, matching);
    if (share >= kScanShareMax) return Probing(*this, search, matching, best).Run(share);
  }
  std::vector<size_t> all(search.queries.size());
  std::iota(all.begin(), all.end(), 0);
  return Scan(*this, search, matching, all, best).Run();
}

}  // namespace retro
