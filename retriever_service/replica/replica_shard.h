// A shard in this process as one of several replicas: reads are answered while the cluster file has it in sync, changes
// while it is the primary and when all that are in sync have them.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "common/base/sync.h"
#include "retriever_service/cluster/cluster_watch.h"
#include "retriever_service/replica/in_sync_set.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/shard/shard.h"

namespace retro {

class ReplicaShard : public Shard {
 public:
  // `watch` must outlive this. `number` is the shard's, `name` this replica's in the cluster file.
  ReplicaShard(ClusterWatch& watch, uint32_t number, std::string name, std::chrono::milliseconds late_after)
      : watch_(watch), number_(number), name_(std::move(name)), in_sync_(late_after) {}

  // ------------------------------------------------------------ as Shard
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

  // ------------------------------------------------------------ for those who keep it
  uint32_t number() const { return number_; }
  const std::string& name() const { return name_; }
  InSyncSet& in_sync() { return in_sync_; }
  // Whether reads are answered: the cluster file has it in sync, and the store is there.
  bool readable() const { return Readable().ok(); }
  ClusterWatch& watch() { return watch_; }
  // UNAVAILABLE while the store is being replaced.
  absl::StatusOr<std::shared_ptr<LocalShard>> local() const ABSL_LOCKS_EXCLUDED(mutex_);
  void SetLocal(std::unique_ptr<LocalShard> local) ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes the store from everybody, has what lasts long end, and waits until whoever uses it last has closed it: its
  // files are free then.
  void CloseLocal() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // The store, if reads may be answered from it.
  absl::StatusOr<std::shared_ptr<LocalShard>> Readable() const;
  // `carry_out` is told which write this is, as InSyncSet::WaitFor wants it.
  template <typename Response>
  absl::StatusOr<Response> Change(
      uint64_t epoch, const CallContext& context,
      const std::function<absl::StatusOr<Response>(LocalShard& local, uint64_t write)>& carry_out);

  ClusterWatch& watch_;
  const uint32_t number_;
  const std::string name_;
  InSyncSet in_sync_;
  mutable Mutex mutex_;
  std::shared_ptr<LocalShard> local_ ABSL_GUARDED_BY(mutex_);
  std::future<void> closed_ ABSL_GUARDED_BY(mutex_);  // ready once local_ has been destroyed
};

}  // namespace retro
