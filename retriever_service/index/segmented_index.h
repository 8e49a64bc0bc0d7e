// The index of a collection: sealed segments, and a growing one for what came after them.
//
//   changes ──► growing ──(seal_rows)──► frozen ──► sealed ─┐ four that follow each other, or one with many removed
//                 │                        │          ▲     │
//                 └────── searches: all ───┴──────────┴─────┘
//
// Chunk ids are cut into cells of seal_rows counters. The growing segment is frozen when the ids pass the end of a
// cell, and another one grows: however fast changes come, each seal takes the same time and memory. Frozen ones are
// turned into sealed ones in the background, one after the other: vectors and documents written, lists trained, the
// manifest replaced, and then one step of the index puts the new segment in the place of the old. Sealed ones are
// merged likewise when all of 4, 16, 64 ... cells that begin at a multiple of that are there: by one thread the largest
// that can be, by another what takes it minutes at most, so that a merge which takes hours lets nothing pile up.
// Readers hold an immutable list of segments, so no search waits for any of it, and none sees a gap.
//
// What a segment holds is a function of the changes, not of when somebody got round to it or of how they were batched:
// the documents that there were at the step at which it was frozen, its last cell was, or a quarter of it was gone.
// What went between that step and its making is in it, removed. So indexes that saw the same changes come to the same
// segments, trained on the same vectors. It does not hold for what was removed, while a segment was still to be made,
// by a process that ended then; for documents whose metadata changed, whose rows move to what grows; nor for an index
// that was lost and made again.
//
// Every segment can be made again from the store. Until a lost one is, its documents are in the growing segment and
// compared one by one: slower (state REBUILDING), never wrong.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "common/base/sync.h"
#include "retriever_service/index/growing_segment.h"
#include "retriever_service/index/index_folder.h"
#include "retriever_service/index/index_settings.h"
#include "retriever_service/index/sealed_segment.h"
#include "retriever_service/index/vector_index.h"

namespace retro {

struct SegmentedIndexOptions {
  IndexSettings settings;
  std::string folder;  // made when the first segment is sealed
  IndexIdentity identity;
  // Tests take small ones.
  uint32_t block_rows = 1'024;
  uint32_t moved_at_once = 4'096;  // documents, to a new segment, while changes wait: a few ms
  // False: nothing is sealed or merged but by Maintain.
  bool background = true;
};

class SegmentedIndex : public VectorIndex {
 public:
  // With the segments that the folder holds, and no documents. `last`: the store's newest change.
  SegmentedIndex(const SegmentedIndexOptions& options, const shardpb::Position& last);
  // Gives up what is being built.
  ~SegmentedIndex() override;

  // Filling it from the store, before the first search or other change: each document is either found in a segment
  // (true) or missing. Then Restored starts the background, and the missing ones are given to Apply, in the order of
  // their chunk ids, so that they come into the segments that they were in; then Filled. Nothing of it waits: see
  // WaitForMaintenance.
  bool Restore(const std::shared_ptr<const IndexedDocument>& document) ABSL_LOCKS_EXCLUDED(writer_mutex_);
  bool has_sealed_segments() const ABSL_LOCKS_EXCLUDED(writer_mutex_);
  void Restored() ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_, wake_mutex_);
  void Filled() ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_, wake_mutex_);

  void Apply(std::vector<IndexChange> changes, const shardpb::Position& position) override
      ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_, wake_mutex_);
  absl::StatusOr<IndexAnswer> Search(std::span<const IndexQuery> queries, const IndexSearchOptions& options,
                                     const CallContext& context) const override ABSL_LOCKS_EXCLUDED(view_mutex_);
  absl::StatusOr<std::vector<std::string>> MatchingDocuments(const CompiledFilter& filter, uint64_t newest, size_t most,
                                                             const CallContext& context) const override
      ABSL_LOCKS_EXCLUDED(view_mutex_);
  absl::StatusOr<uint64_t> NewestMatching(const CompiledFilter& filter, const CallContext& context) const override
      ABSL_LOCKS_EXCLUDED(view_mutex_);
  absl::StatusOr<uint64_t> CountMatching(const CompiledFilter& filter, const CallContext& context) const override
      ABSL_LOCKS_EXCLUDED(view_mutex_);
  IndexStats Stats() const override ABSL_LOCKS_EXCLUDED(writer_mutex_);

  // What is growing is sealed next, however little it is. Returns what WaitForSealing takes.
  uint64_t SealGrowing() ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_, wake_mutex_);
  // Waits until what was left to be sealed at a call of SealGrowing is sealed, whatever came since. Errors are those of
  // WaitForMaintenance.
  absl::Status WaitForSealing(uint64_t step, absl::Duration most) const ABSL_LOCKS_EXCLUDED(writer_mutex_, wake_mutex_);

  // For writers who are faster than the background: waits until at most `frozen_max` segments are left to be sealed,
  // and with 0 until nothing is left to be merged either. DEADLINE_EXCEEDED after `most`; the error that sealing or
  // merging met last, if it did not go on since.
  absl::Status WaitForMaintenance(size_t frozen_max, absl::Duration most = absl::InfiniteDuration()) const
      ABSL_LOCKS_EXCLUDED(writer_mutex_, wake_mutex_);

  // Does the next piece of sealing, merging or measuring that is due; false if none was. One thread, and only if not
  // options.background.
  absl::StatusOr<bool> Maintain() ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_);

 private:
  struct View;
  struct Work;
  // Where a document's rows are.
  struct Place {
    std::shared_ptr<const IndexedDocument> document;
    std::shared_ptr<GrowingSegment> growing;  // either this
    std::shared_ptr<SealedSegment> sealed;    // or this
    uint64_t at = 0;                          // its first row, or its number in the sealed one
  };
  // To be sealed.
  struct Frozen {
    std::shared_ptr<GrowingSegment> segment;
    uint64_t step = 0;  // at which it was frozen: what it had then is sealed
    uint64_t cell = 0;  // the last that is in it
  };
  // The threads of the background.
  enum : size_t { kSealer, kSmallMerger, kMerger, kWorkers };
  struct Worker {
    bool awake = false;
    absl::Status status;  // how its last piece of work ended
  };

  // ------------------------------------------------------------ changes
  void Put(IndexChange change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void Remove(const std::string& document_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void RemoveRows(const Place& place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void RemoveFromReplaced(const Place& place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  // Half precision, [chunk_count, dimension].
  std::string VectorsAt(const Place& place) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void EmptySparseBlock() ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  uint64_t CellOf(uint64_t counter) const { return (counter - 1) / options_.settings.seal_rows; }
  uint64_t LastCellOf(const SealedSegment& segment) const;
  // Freezes what grows, if it is enough for a segment, where the ids leave its cell.
  void GrowIn(uint64_t cell) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void Freeze() ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void CountIn(const IndexedDocument& document) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_) ABSL_LOCKS_EXCLUDED(view_mutex_);
  std::shared_ptr<const View> CurrentView() const ABSL_LOCKS_EXCLUDED(view_mutex_);
  // Until `visit` says false, or with the error of the context.
  absl::Status VisitMatching(const CompiledFilter& filter, const CallContext& context,
                             const std::function<bool(const IndexedDocument&)>& visit) const
      ABSL_LOCKS_EXCLUDED(view_mutex_);

  // ------------------------------------------------------------ maintenance
  std::optional<Work> TakeSeal() ABSL_LOCKS_EXCLUDED(writer_mutex_);
  // Of runs of up to `cells_max` cells.
  std::optional<Work> TakeMerge(uint64_t cells_max) ABSL_LOCKS_EXCLUDED(writer_mutex_);
  Work ChooseMerge(uint64_t cells_max) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);  // of nothing if none is due
  void Gather(Work& work) const;
  absl::Status CarryOut(std::optional<Work> work) ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_);
  absl::Status Make(Work& work) ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_);
  void Install(const Work& work, const std::shared_ptr<SealedSegment>& made)
      ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_);
  void Move(const Work& work, size_t begin, size_t end, const std::shared_ptr<SealedSegment>& made)
      ABSL_LOCKS_EXCLUDED(writer_mutex_);
  bool RecallIsDue() const ABSL_LOCKS_EXCLUDED(writer_mutex_);
  std::vector<std::vector<float>> SampleDocuments(std::vector<std::string>& ids) ABSL_LOCKS_EXCLUDED(writer_mutex_);
  absl::Status MeasureRecall() ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_);
  bool WorkIsDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_mutex_);
  // Each does a piece; false if none was due.
  absl::StatusOr<bool> Seal() ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_);
  absl::StatusOr<bool> MergeFew() ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_);
  absl::StatusOr<bool> MergeOrMeasure() ABSL_LOCKS_EXCLUDED(writer_mutex_, view_mutex_);
  // DEADLINE_EXCEEDED after `most`; the error that one of the first `workers` met last, if it did not go on since.
  absl::Status WaitUntil(const std::function<bool()>& holds, size_t workers, absl::Duration most) const
      ABSL_LOCKS_EXCLUDED(writer_mutex_, wake_mutex_);
  void Wake() ABSL_LOCKS_EXCLUDED(wake_mutex_);
  void Run(size_t worker, absl::StatusOr<bool> (SegmentedIndex::*piece)()) ABSL_LOCKS_EXCLUDED(wake_mutex_);

  const SegmentedIndexOptions options_;
  const int dimension_;

  mutable Mutex writer_mutex_;  // held through a step; never by searches, never while anything is built
  std::shared_ptr<GrowingSegment> growing_ ABSL_GUARDED_BY(writer_mutex_);
  // That the next chunk id is in; until Filled, of the missing ones: a lost segment's come into cells as they were.
  uint64_t cell_ ABSL_GUARDED_BY(writer_mutex_) = 0;
  uint64_t restored_cell_ ABSL_GUARDED_BY(writer_mutex_) = 0;  // that the next chunk id is in, by what was found
  std::deque<Frozen> frozen_ ABSL_GUARDED_BY(writer_mutex_);   // in the order in which they are sealed
  bool restored_ ABSL_GUARDED_BY(writer_mutex_) = false;
  std::vector<std::shared_ptr<SealedSegment>> sealed_ ABSL_GUARDED_BY(writer_mutex_);
  absl::flat_hash_set<const SealedSegment*> being_merged_ ABSL_GUARDED_BY(writer_mutex_);
  // New segments that documents are moved to, before searches see them.
  absl::flat_hash_map<const SealedSegment*, const Work*> arriving_ ABSL_GUARDED_BY(writer_mutex_);
  absl::flat_hash_map<std::string, Place> documents_ ABSL_GUARDED_BY(writer_mutex_);
  uint64_t step_ ABSL_GUARDED_BY(writer_mutex_) = 1;  // that is being made, or was made last
  shardpb::Position position_ ABSL_GUARDED_BY(writer_mutex_);
  IndexStats stats_ ABSL_GUARDED_BY(writer_mutex_);             // what is counted on
  uint64_t document_bytes_ ABSL_GUARDED_BY(writer_mutex_) = 0;  // of memory, of what is known of documents
  uint64_t changed_chunks_ ABSL_GUARDED_BY(writer_mutex_) = 0;  // put or removed since recall was measured
  int building_ ABSL_GUARDED_BY(writer_mutex_) = 0;             // segments under construction
  bool rebuilding_ ABSL_GUARDED_BY(writer_mutex_) = false;      // more came from the store than would be left growing

  mutable Mutex view_mutex_;  // for the pointer alone
  std::shared_ptr<const View> view_ ABSL_GUARDED_BY(view_mutex_);

  IndexFolder folder_;
  std::atomic<uint64_t> building_bytes_ = 0;  // see BuildMemory

  std::atomic<bool> stop_ = false;
  mutable Mutex wake_mutex_;
  CondVar wake_;
  std::array<Worker, kWorkers> workers_ ABSL_GUARDED_BY(wake_mutex_);
  std::array<std::thread, kWorkers> threads_;  // last: they use all of the above
};

}  // namespace retro
