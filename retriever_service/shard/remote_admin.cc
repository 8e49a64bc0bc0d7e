#include "retriever_service/shard/remote_admin.h"

#include <grpcpp/client_context.h>

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/base/sync.h"
#include "retriever_service/shard/replica_call.h"
#include "retriever_service/shard/shard_channel.h"
#include "retro/admin/v1/admin.grpc.pb.h"
#include "retro/shard/v1/shard.grpc.pb.h"

namespace retro {
namespace {

constexpr std::chrono::seconds kAnswerMax{1};  // of a replica that is asked how it is
constexpr std::chrono::seconds kConnectMax{2};

class RemoteAdmin final : public Admin {
 public:
  RemoteAdmin(std::function<std::shared_ptr<const ClusterConfig>()> cluster, const ClientSecurity& security)
      : cluster_(std::move(cluster)), security_(security) {}

  absl::StatusOr<adminpb::VerifyResponse> Verify(const adminpb::VerifyRequest& request,
                                                 const CallContext& context) override {
    return Pass<adminpb::VerifyResponse>(request, request.replica(), context, &adminpb::AdminService::Stub::Verify);
  }
  absl::StatusOr<adminpb::PromoteResponse> Promote(const adminpb::PromoteRequest& request,
                                                   const CallContext& context) override {
    if (request.replica().empty()) return FieldError("replica", "name the replica that shall be the primary");
    return Pass<adminpb::PromoteResponse>(request, request.replica(), context, &adminpb::AdminService::Stub::Promote);
  }
  absl::StatusOr<adminpb::SetReadOnlyResponse> SetReadOnly(const adminpb::SetReadOnlyRequest& request,
                                                           const CallContext& context) override {
    return Pass<adminpb::SetReadOnlyResponse>(request, "", context, &adminpb::AdminService::Stub::SetReadOnly);
  }

  absl::StatusOr<adminpb::CreateSnapshotResponse> CreateSnapshot(const adminpb::CreateSnapshotRequest& request,
                                                                 const CallContext& context) override {
    return Begin<adminpb::CreateSnapshotResponse>(request, "", context, &adminpb::AdminService::Stub::CreateSnapshot);
  }
  absl::StatusOr<adminpb::CompactResponse> Compact(const adminpb::CompactRequest& request,
                                                   const CallContext& context) override {
    return Begin<adminpb::CompactResponse>(request, "", context, &adminpb::AdminService::Stub::Compact);
  }
  absl::StatusOr<adminpb::TrainIndexResponse> TrainIndex(const adminpb::TrainIndexRequest& request,
                                                         const CallContext& context) override {
    return Begin<adminpb::TrainIndexResponse>(request, request.replica(), context,
                                              &adminpb::AdminService::Stub::TrainIndex);
  }

  absl::StatusOr<adminpb::GetOperationResponse> GetOperation(const adminpb::GetOperationRequest& request,
                                                             const CallContext& context) override {
    const auto config = cluster_();
    const size_t end = request.operation_id().find('/');
    for (const ShardConfig& shard : config->shards) {
      const ReplicaConfig* replica =
          end == std::string::npos ? nullptr : shard.Find(request.operation_id().substr(0, end));
      if (replica == nullptr) continue;
      adminpb::GetOperationRequest inner;
      inner.set_operation_id(request.operation_id().substr(end + 1));
      RETRO_ASSIGN_OR_RETURN(auto response, Call<adminpb::GetOperationResponse>(
                                                inner, *replica, context, &adminpb::AdminService::Stub::GetOperation));
      response.mutable_operation()->set_operation_id(request.operation_id());
      return response;
    }
    return Error(absl::StatusCode::kNotFound, Reason::kNotFound, "there is no such operation");
  }

  absl::StatusOr<adminpb::ListReplicasResponse> ListReplicas(const adminpb::ListReplicasRequest&,
                                                             const CallContext&) override {
    const auto config = cluster_();
    adminpb::ListReplicasResponse response;
    for (uint32_t number = 0; number < config->shards.size(); ++number) {
      std::map<std::string, const ReplicaConfig*> by_name;
      for (const ReplicaConfig& replica : config->shards[number].replicas) by_name[replica.name] = &replica;
      for (const auto& [name, replica] : by_name) {
        *response.add_replicas() = Describe(number, config->shards[number], *replica);
      }
    }
    return response;
  }

 private:
  std::shared_ptr<grpc::Channel> ChannelOf(const std::string& address) ABSL_LOCKS_EXCLUDED(mutex_) {
    const MutexLock lock(mutex_);
    if (const auto found = channels_.find(address); found != channels_.end()) return found->second;
    std::set<std::string> known;  // those of replicas that were taken out go when another comes
    const auto config = cluster_();
    for (const ShardConfig& shard : config->shards) {
      for (const ReplicaConfig& replica : shard.replicas) known.insert(replica.address);
    }
    std::erase_if(channels_, [&](const auto& channel) { return !known.contains(channel.first); });
    return channels_[address] = MakeShardChannel(address, security_);
  }

  template <typename Request, typename Response>
  using Method = grpc::Status (adminpb::AdminService::Stub::*)(grpc::ClientContext*, const Request&, Response*);

  template <typename Response, typename Request>
  absl::StatusOr<Response> Call(const Request& request, const ReplicaConfig& replica, const CallContext& context,
                                Method<Request, Response> method) {
    const auto channel = ChannelOf(replica.address);
    // A replica that has just come back is found at once, not after the pause since it was tried last.
    channel->WaitForConnected(std::chrono::system_clock::now() + kConnectMax);
    const auto stub = adminpb::AdminService::NewStub(channel);
    grpc::ClientContext client;
    PrepareCall(context, client);
    Response response;
    const grpc::Status status = ((*stub).*method)(&client, request, &response);
    RETRO_RETURN_IF_ERROR(
        FromShardCall(status, Effect::kRead, StrCat("replica ", replica.name, " at ", replica.address)));
    return response;
  }

  // Of the shard that the request names; "" is its primary.
  template <typename Request>
  absl::StatusOr<ReplicaConfig> ReplicaOf(const Request& request, const std::string& name) const {
    const auto config = cluster_();
    if (request.shard() >= config->shards.size()) {
      return FieldError("shard", StrCat("there are shards 0 to ", config->shards.size() - 1));
    }
    const ShardConfig& shard = config->shards[request.shard()];
    const ReplicaConfig* replica = shard.Find(name.empty() ? shard.primary : name);
    if (replica != nullptr) return *replica;
    return FieldError("replica", StrCat("shard ", request.shard(), " has no replica \"", name, "\""));
  }

  template <typename Response, typename Request>
  absl::StatusOr<Response> Pass(const Request& request, const std::string& name, const CallContext& context,
                                Method<Request, Response> method) {
    RETRO_ASSIGN_OR_RETURN(const ReplicaConfig replica, ReplicaOf(request, name));
    return Call<Response>(request, replica, context, method);
  }

  // Work that a replica begins; its id says which one's it is.
  template <typename Response, typename Request>
  absl::StatusOr<Response> Begin(const Request& request, const std::string& name, const CallContext& context,
                                 Method<Request, Response> method) {
    RETRO_ASSIGN_OR_RETURN(const ReplicaConfig replica, ReplicaOf(request, name));
    RETRO_ASSIGN_OR_RETURN(Response response, Call<Response>(request, replica, context, method));
    adminpb::Operation& operation = *response.mutable_operation();
    operation.set_operation_id(StrCat(replica.name, "/", operation.operation_id()));
    return response;
  }

  adminpb::Replica Describe(uint32_t number, const ShardConfig& shard, const ReplicaConfig& replica) {
    adminpb::Replica description;
    description.set_shard(number);
    description.set_name(replica.name);
    description.set_address(replica.address);
    description.set_primary(replica.name == shard.primary);
    description.set_in_sync(shard.IsInSync(replica.name));
    grpc::ClientContext client;
    client.set_deadline(std::chrono::system_clock::now() + kAnswerMax);
    shardpb::GetShardInfoResponse info;
    const auto stub = shardpb::ShardService::NewStub(ChannelOf(replica.address));
    description.set_reachable(stub->GetShardInfo(&client, {}, &info).ok());
    description.set_epoch(info.position().epoch());
    description.set_position(info.position().number());
    return description;
  }

  const std::function<std::shared_ptr<const ClusterConfig>()> cluster_;
  const ClientSecurity security_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels_ ABSL_GUARDED_BY(mutex_);  // by address
};

}  // namespace

std::unique_ptr<Admin> MakeRemoteAdmin(std::function<std::shared_ptr<const ClusterConfig>()> cluster,
                                       const ClientSecurity& security) {
  return std::make_unique<RemoteAdmin>(std::move(cluster), security);
}

}  // namespace retro
