// One replica of one shard of a cluster: keeps its store in step with the cluster file. As the primary it founds a new
// shard, begins epochs, drops from the in-sync set who holds up writes and takes in who has caught up; as a follower it
// pulls the primary's changes, or a copy of its store when the log no longer has them.
#pragma once

#include <grpcpp/client_context.h>

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/sync.h"
#include "common/rpc/credentials.h"
#include "retriever_service/replica/replica_shard.h"
#include "retriever_service/replica/store_copy.h"
#include "retriever_service/shard/replication.h"
#include "retro/shard/v1/shard.grpc.pb.h"

namespace retro {

struct ReplicaOptions {
  LocalShardOptions local;  // cluster, shard, count and store id are the cluster file's
  uint32_t shard = 0;
  std::string name;
  ClientSecurity security;  // of calls to the other replicas
  // A replica that holds up a write so long is dropped from the in-sync set.
  std::chrono::milliseconds late_after{2000};
};

// INVALID_ARGUMENT, naming the flag, if a replica cannot run with this cluster file (read from `path`).
absl::Status CheckReplica(const ReplicaOptions& options, const ClusterConfig& config, const std::string& path);

class Replica : public Replication {
 public:
  // Opens the store. Errors as CheckReplica, else as LocalShard::Open. `watch` must outlive the result.
  static absl::StatusOr<std::unique_ptr<Replica>> Start(const ReplicaOptions& options, ClusterWatch& watch);
  // No call may be in progress.
  ~Replica() override;

  ReplicaShard& shard() { return shard_; }

  // Makes this replica the primary. FAILED_PRECONDITION (BEHIND_LOG) unless the cluster file has it in sync. Returns
  // the epoch.
  absl::StatusOr<uint64_t> Promote();
  // Says in the cluster file that the shard's primary, whichever replica that is, refuses changes, or no longer.
  absl::Status SetReadOnly(bool read_only);

  // ------------------------------------------------------------ as Replication
  absl::Status Pull(const shardpb::PullChangesRequest& request, const CallContext& context,
                    const ChangesSink& send) override;
  absl::Status SendSnapshot(const shardpb::FetchSnapshotRequest& request, const CallContext& context,
                            const SnapshotSink& send) override;
  absl::StatusOr<shardpb::KeepLogResponse> KeepLog(const shardpb::KeepLogRequest& request,
                                                   const CallContext& context) override;

 private:
  Replica(const ReplicaOptions& options, ClusterWatch& watch);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits; false at the end.
  bool Pause(std::chrono::milliseconds pause) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnClusterFile() ABSL_LOCKS_EXCLUDED(mutex_);
  bool stopping() const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status overtaken() const ABSL_LOCKS_EXCLUDED(mutex_);

  // The store, which may be a copy that was not put in its place yet.
  absl::Status OpenLocal();

  // ------------------------------------------------------------ as the primary
  absl::Status Lead(const ClusterConfig& config);
  absl::Status Found();
  absl::Status BeginOwnEpoch(const ShardConfig& config);
  absl::Status TakeUpEpoch(const ClusterConfig& config);
  // An error if the store is not as far as it was: it came back older, or empty.
  absl::Status CheckNothingIsLost(const ShardConfig& config) const;
  // An error if another process of the shard has read something else, or takes itself for the primary.
  absl::Status OvertakenBy(const std::string& peer) const;
  absl::Status AskPeers(const ClusterConfig& config);
  absl::Status ChangeInSync(const InSyncSet::Proposal& proposal);

  // ------------------------------------------------------------ as a follower
  absl::Status Follow(const ClusterConfig& config);
  absl::Status PullFrom(const ShardConfig& config);
  // Takes a copy of the primary's store in place of its own; not at once again after one that did not bring it in sync.
  absl::Status TakeCopy(const ShardConfig& config);
  // The position that the copy is of.
  absl::StatusOr<shardpb::Position> ReceiveCopy(const ShardConfig& config, StoreCopyReceiver& receiver);
  // Tells whoever is the primary that the log is still needed from there on.
  void AskToKeepLog(const shardpb::Position& from) const;
  shardpb::ShardService::Stub& StubOf(const std::string& address);
  // A call that ends when this stops or the cluster file changes; if it copies a replica's store, only when that is no
  // longer the primary's. EndCall after it.
  void BeginCall(grpc::ClientContext& context, const std::string& copied = "") ABSL_LOCKS_EXCLUDED(mutex_);
  void EndCall() ABSL_LOCKS_EXCLUDED(mutex_);

  LocalShardOptions local_options_;
  const ClientSecurity security_;
  ClusterWatch& watch_;
  ReplicaShard shard_;

  // The thread's.
  bool follows_ = true;  // as the store was opened
  uint64_t led_epoch_ = 0;
  bool epoch_is_own_ = false;  // no other life of this process has made changes in the epoch that it leads
  InSyncSet::Clock::time_point next_asking_;
  std::map<std::string, std::unique_ptr<shardpb::ShardService::Stub>> stubs_;  // by address
  InSyncSet::Clock::time_point next_copy_;                                     // not before
  std::chrono::milliseconds copy_pause_{0};                                    // after the next one
  std::string last_error_;

  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status overtaken_ ABSL_GUARDED_BY(mutex_);               // a replica in sync has what this primary lost
  grpc::ClientContext* call_ ABSL_GUARDED_BY(mutex_) = nullptr;  // that is under way
  std::string copied_ ABSL_GUARDED_BY(mutex_);                   // the replica whose store it copies; "" for none
  std::thread thread_;                                           // last: it uses all of the above
};

}  // namespace retro
