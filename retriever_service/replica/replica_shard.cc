#include "retriever_service/replica/replica_shard.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

absl::Status Unavailable(std::string_view what) {
  return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable, what);
}

// A first try, which sends no text, may find that nothing was done; there is nothing to wait for then.
bool NothingWasDone(const shardpb::WriteResponse& response) {
  for (const shardpb::ChangeResult& result : response.results()) {
    if (result.outcome() != shardpb::CHANGE_OUTCOME_NEEDS_CHUNKS && !result.has_error()) return false;
  }
  return true;
}
template <typename Response>
bool NothingWasDone(const Response&) {
  return false;  // or by an earlier call, which may not have waited
}

}  // namespace

// ---------------------------------------------------------------- the store

absl::StatusOr<std::shared_ptr<LocalShard>> ReplicaShard::local() const {
  const MutexLock lock(mutex_);
  if (local_ != nullptr) return local_;
  return Unavailable(StrCat("replica ", name_, " of shard ", number_, " is taking a copy of the store"));
}

// A weak pointer would not do: it has expired while the last user is still inside the destructor.
void ReplicaShard::SetLocal(std::unique_ptr<LocalShard> local) {
  const auto closed = std::make_shared<std::promise<void>>();
  std::shared_ptr<LocalShard> shared(local.release(), [closed](const LocalShard* shard) {
    delete shard;
    closed->set_value();
  });
  const MutexLock lock(mutex_);
  local_ = std::move(shared);
  closed_ = closed->get_future();
}

void ReplicaShard::CloseLocal() {
  std::shared_ptr<LocalShard> closing;
  std::future<void> closed;
  {
    const MutexLock lock(mutex_);
    closing = std::exchange(local_, nullptr);
    closed = std::move(closed_);
  }
  if (closing != nullptr) closing->BeginClosing();  // an operator's compaction or digest may take hours
  closing.reset();
  if (closed.valid()) closed.wait();
}

absl::StatusOr<std::shared_ptr<LocalShard>> ReplicaShard::Readable() const {
  RETRO_ASSIGN_OR_RETURN(auto local, this->local());
  const auto config = watch_.Get();
  if (config->shards[number_].IsInSync(name_) && local->position().number() > 0) return local;
  return Unavailable(StrCat("replica ", name_, " of shard ", number_, " has not caught up with the primary"));
}

// ---------------------------------------------------------------- changes

template <typename Response>
absl::StatusOr<Response> ReplicaShard::Change(
    uint64_t epoch, const CallContext& context,
    const std::function<absl::StatusOr<Response>(LocalShard& local, uint64_t write)>& carry_out) {
  RETRO_ASSIGN_OR_RETURN(const uint64_t write, in_sync_.BeginWrite(epoch));
  const absl::Cleanup ended = [this] { in_sync_.EndWrite(); };
  RETRO_ASSIGN_OR_RETURN(auto local, this->local());
  RETRO_ASSIGN_OR_RETURN(Response response, carry_out(*local, write));
  if (!NothingWasDone(response)) {
    RETRO_RETURN_IF_ERROR(in_sync_.WaitFor(write, response.position(), context));
  }
  return response;
}

absl::StatusOr<shardpb::WriteResponse> ReplicaShard::Write(const shardpb::WriteRequest& request,
                                                           const CallContext& context) {
  return Change<shardpb::WriteResponse>(request.epoch(), context,
                                        [&](LocalShard& local, uint64_t) { return local.Write(request, context); });
}

absl::StatusOr<shardpb::DeleteResponse> ReplicaShard::Delete(const shardpb::DeleteRequest& request,
                                                             const CallContext& context) {
  if (request.dry_run()) {  // it only counts
    RETRO_ASSIGN_OR_RETURN(auto local, Readable());
    return local->Delete(request, context);
  }
  // A large one runs ahead of nobody in sync, who would find the log trimmed and hold up the writes beside it.
  return Change<shardpb::DeleteResponse>(request.epoch(), context, [&](LocalShard& local, uint64_t write) {
    return local.DeleteInParts(request, context, [&](const shardpb::Position& position) {
      return in_sync_.WaitFor(write, position, context);
    });
  });
}

absl::StatusOr<shardpb::CreateCollectionResponse> ReplicaShard::CreateCollection(
    const shardpb::CreateCollectionRequest& request, const CallContext& context) {
  return Change<shardpb::CreateCollectionResponse>(
      request.epoch(), context, [&](LocalShard& local, uint64_t) { return local.CreateCollection(request, context); });
}

absl::StatusOr<shardpb::DropCollectionResponse> ReplicaShard::DropCollection(
    const shardpb::DropCollectionRequest& request, const CallContext& context) {
  return Change<shardpb::DropCollectionResponse>(
      request.epoch(), context, [&](LocalShard& local, uint64_t) { return local.DropCollection(request, context); });
}

// ---------------------------------------------------------------- reading

absl::StatusOr<shardpb::SearchResponse> ReplicaShard::Search(const shardpb::SearchRequest& request,
                                                             const CallContext& context) {
  RETRO_ASSIGN_OR_RETURN(auto local, Readable());
  return local->Search(request, context);
}

absl::StatusOr<shardpb::GetDocumentResponse> ReplicaShard::GetDocument(const shardpb::GetDocumentRequest& request,
                                                                       const CallContext& context) {
  RETRO_ASSIGN_OR_RETURN(auto local, Readable());
  return local->GetDocument(request, context);
}

absl::StatusOr<shardpb::GetChunksResponse> ReplicaShard::GetChunks(const shardpb::GetChunksRequest& request,
                                                                   const CallContext& context) {
  RETRO_ASSIGN_OR_RETURN(auto local, Readable());
  return local->GetChunks(request, context);
}

absl::StatusOr<shardpb::ListDocumentsResponse> ReplicaShard::ListDocuments(const shardpb::ListDocumentsRequest& request,
                                                                           const CallContext& context) {
  RETRO_ASSIGN_OR_RETURN(auto local, Readable());
  return local->ListDocuments(request, context);
}

absl::StatusOr<shardpb::StatsResponse> ReplicaShard::Stats(const shardpb::StatsRequest& request,
                                                           const CallContext& context) {
  RETRO_ASSIGN_OR_RETURN(auto local, Readable());
  return local->Stats(request, context);
}

// Answers whatever its state is: routers and peers learn from it what that is.
absl::StatusOr<shardpb::GetShardInfoResponse> ReplicaShard::GetShardInfo(const shardpb::GetShardInfoRequest& request,
                                                                         const CallContext& context) {
  const auto config = watch_.Get();
  const auto local = this->local();
  shardpb::GetShardInfoResponse response;
  if (local.ok()) {
    RETRO_ASSIGN_OR_RETURN(response, (*local)->GetShardInfo(request, context));
  }
  response.set_store_id(config->store_id);
  response.set_cluster(config->cluster);
  response.set_shard(number_);
  response.set_shard_count(static_cast<uint32_t>(config->shards.size()));
  response.set_cluster_version(config->version);
  response.set_cluster_fingerprint(config->Fingerprint());
  response.set_replica(name_);
  const uint64_t leading = in_sync_.epoch();
  response.set_role(leading != 0 ? shardpb::REPLICA_ROLE_PRIMARY : shardpb::REPLICA_ROLE_FOLLOWER);
  response.set_epoch(leading != 0 ? leading : config->shards[number_].epoch);
  response.set_in_sync(readable());
  return response;
}

}  // namespace retro
