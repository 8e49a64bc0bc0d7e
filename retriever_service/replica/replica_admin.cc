#include "retriever_service/replica/replica_admin.h"

#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/shard/local_admin.h"

namespace retro {
namespace {

class ReplicaAdmin final : public LocalAdmin {
 public:
  ReplicaAdmin(LocalAdminOptions options, Replica& replica) : LocalAdmin(std::move(options)), replica_(replica) {}

  absl::StatusOr<adminpb::VerifyResponse> Verify(const adminpb::VerifyRequest& request,
                                                 const CallContext& context) override {
    RETRO_RETURN_IF_ERROR(CheckName(request.replica()));
    return LocalAdmin::Verify(request, context);
  }

  absl::StatusOr<adminpb::SetReadOnlyResponse> SetReadOnly(const adminpb::SetReadOnlyRequest& request,
                                                           const CallContext&) override {
    RETRO_RETURN_IF_ERROR(CheckShard(request.shard()));
    RETRO_RETURN_IF_ERROR(replica_.SetReadOnly(request.read_only()));
    return adminpb::SetReadOnlyResponse();
  }

  absl::StatusOr<adminpb::TrainIndexResponse> TrainIndex(const adminpb::TrainIndexRequest& request,
                                                         const CallContext& context) override {
    RETRO_RETURN_IF_ERROR(CheckName(request.replica()));
    return LocalAdmin::TrainIndex(request, context);
  }

  absl::StatusOr<adminpb::ListReplicasResponse> ListReplicas(const adminpb::ListReplicasRequest&,
                                                             const CallContext&) override {
    return Error(absl::StatusCode::kUnimplemented, Reason::kNotSupported,
                 "a shard's process does not look after the other replicas: ask a retro-retriever of the cluster");
  }

  absl::StatusOr<adminpb::PromoteResponse> Promote(const adminpb::PromoteRequest& request,
                                                   const CallContext&) override {
    RETRO_RETURN_IF_ERROR(CheckShard(request.shard()));
    RETRO_RETURN_IF_ERROR(CheckName(request.replica()));
    RETRO_ASSIGN_OR_RETURN(const uint64_t epoch, replica_.Promote());
    adminpb::PromoteResponse response;
    response.set_epoch(epoch);
    return response;
  }

 private:
  absl::Status CheckName(const std::string& name) const {
    if (name.empty() || name == replica_.shard().name()) return absl::OkStatus();
    return FieldError("replica", StrCat("this process is replica ", replica_.shard().name()));
  }

  Replica& replica_;
};

}  // namespace

std::unique_ptr<Admin> MakeReplicaAdmin(Replica& replica, const std::string& snapshot_dir) {
  ReplicaShard& shard = replica.shard();
  const auto config = shard.watch().Get();
  LocalAdminOptions options;
  options.shard = shard.number();
  options.first_slot = config->shards[shard.number()].first_slot;
  options.last_slot = config->shards[shard.number()].last_slot;
  options.snapshot_dir = snapshot_dir;
  options.open = [&shard] { return shard.local(); };
  return std::make_unique<ReplicaAdmin>(std::move(options), replica);
}

}  // namespace retro
