// The one thread that changes a shard. It takes what callers have brought, makes the changes of all of them durable
// with one synced write (group commit: while the disk is busy, more callers gather), then visible in the indexes, then
// answers, in order.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/base/sync.h"
#include "common/document/protos.h"
#include "retriever_service/shard/applied_position.h"
#include "retriever_service/shard/live_collections.h"
#include "retriever_service/store/store.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

class ShardWriter {
 public:
  // All must outlive this. If it does not accept changes, it is as after Follow().
  ShardWriter(Store& store, LiveCollections& collections, AppliedPosition& applied, bool accepts_changes);
  // No call may be in progress.
  ~ShardWriter();

  // Any thread; they block until their changes are durable and visible, or failed. As in shard.h. A failure after some
  // of them were done is UNAVAILABLE (WRITE_OUTCOME_UNKNOWN), unless the caller has left.
  absl::StatusOr<shardpb::WriteResponse> Write(const shardpb::WriteRequest& request, const CallContext& context);
  // What is more than one group goes in parts; between two of them `between` is called, on the caller's thread, with
  // the position of what is done. Its error ends the deletion and is passed on.
  using Between = std::function<absl::Status(const shardpb::Position&)>;
  absl::StatusOr<shardpb::DeleteResponse> Delete(const shardpb::DeleteRequest& request, const CallContext& context,
                                                 const Between& between);
  absl::StatusOr<shardpb::CreateCollectionResponse> CreateCollection(const shardpb::CreateCollectionRequest& request,
                                                                     const CallContext& context);
  absl::StatusOr<shardpb::DropCollectionResponse> DropCollection(const shardpb::DropCollectionRequest& request,
                                                                 const CallContext& context);

  // As a replica, in the order of the calls with those above. Lead: from now on changes are accepted, in this epoch,
  // which begins in the log if it is later than the newest change's; FAILED_PRECONDITION (STALE_EPOCH) if it is
  // earlier.
  absl::Status Lead(uint64_t epoch, const shardpb::EpochStart& start);
  // From now on changes are refused (STALE_EPOCH), and Replay carries out those of the primary.
  absl::Status Follow();
  // As Transaction::Replay, for changes that follow each other; what came before one that failed is done.
  absl::Status Replay(const std::vector<shardpb::PullChangesResponse>& changes);

  // As Store::TrimLogTo, until nothing is left to drop, or `go_on` says that it is to end; changes of others go in
  // between.
  absl::Status TrimLogTo(uint64_t changes, const std::function<absl::Status()>& go_on);

 private:
  class Group;
  class Job;
  class WriteJob;
  class DeleteJob;
  class CreateCollectionJob;
  class DropCollectionJob;
  class LeadJob;
  class FollowJob;
  class ReplayJob;
  class TrimJob;

  absl::Status CheckEpoch(uint64_t epoch) const;
  // Hands the job to the thread and waits for its end. `begun`: some of what it belongs to has been done.
  absl::Status Perform(Job& job, bool begun = false) ABSL_LOCKS_EXCLUDED(mutex_);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // Puts what was brought at the end of the line; waits if that leaves it empty. False at the end.
  bool TakeJobs(std::deque<Job*>& line) ABSL_LOCKS_EXCLUDED(mutex_);
  // As much of the job as the group has room for.
  void Stage(Job& job, Group& group) ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes what the group holds durable and visible. Ends the jobs that have nothing left to do, and puts the others at
  // the end of the line.
  void Flush(Group group, std::deque<Job*>& line) ABSL_LOCKS_EXCLUDED(mutex_);
  bool MustHurry(const std::deque<Job*>& line) ABSL_LOCKS_EXCLUDED(mutex_);
  // While too much waits for that, for a while.
  void WaitForSealing(const SegmentedIndex& index, size_t frozen_max, absl::Time end, const std::deque<Job*>& line)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void End(Job& job, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);

  Store& store_;
  LiveCollections& collections_;
  AppliedPosition& applied_;
  bool accepts_changes_;  // the thread's

  Mutex mutex_;
  CondVar brought_, ended_;
  std::vector<Job*> queue_ ABSL_GUARDED_BY(mutex_);  // the callers', who wait; so its length is bounded by their number
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace retro
