// A shard in other processes: its replicas, over gRPC. Reads go to the replica in sync with the fewest calls
// outstanding, and to another when that fails or takes longer than nearly all calls did lately; changes go to the
// primary. A replica that does not answer is left aside until it does again; one that another has overtaken twice is
// asked last until it answers anything. While all of them are silent, reads fail at once, and those under way end.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/rpc/metrics.h"
#include "retriever_service/cluster/cluster_file.h"
#include "retriever_service/shard/replica_call.h"
#include "retriever_service/shard/shard.h"

namespace retro {

// What a RemoteShard knows of its cluster; both any thread.
struct ClusterView {
  std::function<std::shared_ptr<const ClusterConfig>()> get;
  std::function<void()> reload;  // called when a replica says that what `get` returns is old
  ClientSecurity security;       // of calls to the replicas
};

// Calls carry the caller's deadline less a margin for the way back, and its request id; a caller who leaves cancels
// them. Errors name the shard and the replica: UNAVAILABLE (SHARD_UNAVAILABLE) if no replica answers, or the primary is
// known not to listen; a change whose answer is lost has the reason WRITE_OUTCOME_UNKNOWN.
class RemoteShard : public Shard, private CallObserver {
 public:
  // `metrics` must outlive this.
  RemoteShard(uint32_t number, ClusterView cluster, Metrics& metrics);
  ~RemoteShard() override;

  absl::StatusOr<shardpb::SearchResponse> Search(const shardpb::SearchRequest& request,
                                                 const CallContext& context) override;
  absl::StatusOr<shardpb::WriteResponse> Write(const shardpb::WriteRequest& request,
                                               const CallContext& context) override;
  absl::StatusOr<shardpb::DeleteResponse> Delete(const shardpb::DeleteRequest& request,
                                                 const CallContext& context) override;
  absl::StatusOr<shardpb::CreateCollectionResponse> CreateCollection(const shardpb::CreateCollectionRequest& request,
                                                                     const CallContext& context) override;
  absl::StatusOr<shardpb::DropCollectionResponse> DropCollection(const shardpb::DropCollectionRequest& request,
                                                                 const CallContext& context) override;
  absl::StatusOr<shardpb::GetDocumentResponse> GetDocument(const shardpb::GetDocumentRequest& request,
                                                           const CallContext& context) override;
  absl::StatusOr<shardpb::GetChunksResponse> GetChunks(const shardpb::GetChunksRequest& request,
                                                       const CallContext& context) override;
  absl::StatusOr<shardpb::ListDocumentsResponse> ListDocuments(const shardpb::ListDocumentsRequest& request,
                                                               const CallContext& context) override;
  absl::StatusOr<shardpb::StatsResponse> Stats(const shardpb::StatsRequest& request,
                                               const CallContext& context) override;
  absl::StatusOr<shardpb::GetShardInfoResponse> GetShardInfo(const shardpb::GetShardInfoRequest& request,
                                                             const CallContext& context) override;

  // True if a replica could answer reads when it was last asked.
  bool available() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Brings the gauges up to date; before each scrape, on its thread. Those of replicas that the cluster file no longer
  // has are not shown any more.
  void RefreshMetrics() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using ReplicaPtr = std::shared_ptr<RemoteReplica>;
  struct Question;
  using Clock = std::chrono::steady_clock;

  // The replicas of the cluster file as it now is.
  std::vector<ReplicaPtr> Replicas(const ShardConfig& config) const ABSL_LOCKS_EXCLUDED(mutex_);
  ReplicaPtr Find(const ReplicaConfig& config) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Those that reads may be sent to, best first; an error if all of them are silent.
  absl::StatusOr<std::vector<ReplicaPtr>> Readers() const;
  // UNAVAILABLE (BEHIND_TOKEN) if the shard is to wait for what it cannot have yet.
  absl::Status CheckWait(const shardpb::ReadBarrier& barrier) const;
  Clock::duration HedgeAfter() const ABSL_LOCKS_EXCLUDED(mutex_);
  template <typename Response, typename Request, typename Method>
  absl::StatusOr<Response> Read(const Request& request, const CallContext& context, Method method);
  // Asks the next one when the one before has not answered for `hedge_after`.
  template <typename Response, typename Request, typename Method>
  absl::StatusOr<Response> ReadFrom(std::vector<ReplicaPtr> readers, Clock::duration hedge_after,
                                    const Request& request, const CallContext& context, Method method);
  // `begin` sends it to the primary, in the epoch that it is given.
  template <typename Response, typename Begin>
  absl::StatusOr<Response> Change(const CallContext& context, const Begin& begin);

  // ------------------------------------------------------------ as CallObserver
  std::string Where(const RemoteReplica& replica) const override;
  absl::Status NobodyAnswers(const std::vector<ReplicaPtr>& replicas) const override;
  void OnAnswer(RemoteReplica& replica, Clock::duration took) override ABSL_LOCKS_EXCLUDED(mutex_);
  void OnFailure(RemoteReplica& replica, const absl::Status& status, Clock::duration took) override;
  void OnHedge() override;
  void OnOvertaken(RemoteReplica& replica) override;

  // ------------------------------------------------------------ asking how they are
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  void Ask(std::list<Question>& questions) ABSL_LOCKS_EXCLUDED(mutex_);
  // Gives up the channels of those that the cluster file no longer has, as soon as nobody else uses them.
  void ForgetOthersThan(const ShardConfig& config) ABSL_LOCKS_EXCLUDED(mutex_);
  // `replica` has answered, or not, while the cluster file said `config`.
  void Learn(const ClusterConfig& config, const grpc::Status& answer, const shardpb::GetShardInfoResponse& info,
             RemoteReplica& replica);
  absl::Status CheckIdentity(const shardpb::GetShardInfoResponse& info, const RemoteReplica& replica,
                             const ClusterConfig& config) const;
  void SetState(RemoteReplica& replica, RemoteReplica::State state, const absl::Status& why);

  static constexpr size_t kTimesKept = 128;

  const uint32_t number_;
  const ClusterView cluster_;
  Metrics& metrics_;
  prometheus::Counter& hedges_;
  mutable std::atomic<uint64_t> turn_ = 0;  // of replicas that are equally good

  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  using ReplicaKey = std::pair<std::string, std::string>;  // name and address
  mutable std::map<ReplicaKey, ReplicaPtr> replicas_ ABSL_GUARDED_BY(mutex_);
  std::array<Clock::duration, kTimesKept> times_ ABSL_GUARDED_BY(mutex_) = {};  // of the last answers
  uint64_t answers_ ABSL_GUARDED_BY(mutex_) = 0;
  Clock::duration hedge_after_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> shown_;  // replicas that have gauges; the scrape's thread's
  std::thread thread_;           // last: it uses all of the above
};

}  // namespace retro
