#include "retriever_service/shard/local_admin.h"

#include <utility>

#include "absl/time/time.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr absl::Duration kAskEvery = absl::Milliseconds(200);  // whether an operation is to end

}  // namespace

absl::Status LocalAdmin::CheckShard(uint32_t shard) const {
  if (shard == options_.shard) return absl::OkStatus();
  return FieldError("shard", StrCat("this process has shard ", options_.shard, " alone"));
}

absl::StatusOr<adminpb::CreateSnapshotResponse> LocalAdmin::CreateSnapshot(
    const adminpb::CreateSnapshotRequest& request, const CallContext&) {
  RETRO_RETURN_IF_ERROR(CheckShard(request.shard()));
  RETRO_ASSIGN_OR_RETURN(auto shard, options_.open());
  adminpb::CreateSnapshotResponse response;
  RETRO_ASSIGN_OR_RETURN(*response.mutable_name(), snapshots_.NewName(*shard));
  RETRO_ASSIGN_OR_RETURN(
      *response.mutable_operation(),
      operations_.Begin(Operations::Line::kSnapshots, [this, shard = std::move(shard),
                                                       name = response.name()](const Operations::Progress& progress) {
        return snapshots_.Create(name, *shard, options_.first_slot, options_.last_slot, [&] { return progress(0); });
      }));
  return response;
}

absl::StatusOr<adminpb::ListSnapshotsResponse> LocalAdmin::ListSnapshots(const adminpb::ListSnapshotsRequest&,
                                                                         const CallContext&) {
  RETRO_ASSIGN_OR_RETURN(const auto snapshots, snapshots_.List());
  adminpb::ListSnapshotsResponse response;
  response.mutable_snapshots()->Assign(snapshots.begin(), snapshots.end());
  return response;
}

absl::StatusOr<adminpb::DeleteSnapshotResponse> LocalAdmin::DeleteSnapshot(
    const adminpb::DeleteSnapshotRequest& request, const CallContext&) {
  RETRO_RETURN_IF_ERROR(snapshots_.Delete(request.name()));
  return adminpb::DeleteSnapshotResponse();
}

absl::StatusOr<adminpb::VerifyResponse> LocalAdmin::Verify(const adminpb::VerifyRequest& request,
                                                           const CallContext& context) {
  RETRO_RETURN_IF_ERROR(CheckShard(request.shard()));
  RETRO_ASSIGN_OR_RETURN(const auto shard, options_.open());
  RETRO_ASSIGN_OR_RETURN(const Store::Digest digest, shard->ComputeDigest(context));
  adminpb::VerifyResponse response;
  response.set_content_sha256(digest.sha256);
  response.set_epoch(digest.position.epoch());
  response.set_position(digest.position.number());
  response.set_documents(digest.documents);
  response.set_chunks(digest.chunks);
  return response;
}

absl::StatusOr<adminpb::CompactResponse> LocalAdmin::Compact(const adminpb::CompactRequest& request,
                                                             const CallContext&) {
  RETRO_RETURN_IF_ERROR(CheckShard(request.shard()));
  RETRO_ASSIGN_OR_RETURN(auto shard, options_.open());
  adminpb::CompactResponse response;
  RETRO_ASSIGN_OR_RETURN(*response.mutable_operation(),
                         operations_.Begin(
                             Operations::Line::kMaintenance, [shard](const auto&) { return shard->Compact(); },
                             [shard] { shard->CancelCompaction(); }));
  return response;
}

absl::StatusOr<adminpb::SetReadOnlyResponse> LocalAdmin::SetReadOnly(const adminpb::SetReadOnlyRequest& request,
                                                                     const CallContext&) {
  RETRO_RETURN_IF_ERROR(CheckShard(request.shard()));
  RETRO_ASSIGN_OR_RETURN(const auto shard, options_.open());
  shard->SetReadOnly(request.read_only());
  return adminpb::SetReadOnlyResponse();
}

absl::StatusOr<adminpb::TrainIndexResponse> LocalAdmin::TrainIndex(const adminpb::TrainIndexRequest& request,
                                                                   const CallContext&) {
  RETRO_RETURN_IF_ERROR(CheckShard(request.shard()));
  RETRO_ASSIGN_OR_RETURN(auto shard, options_.open());
  RETRO_ASSIGN_OR_RETURN(const auto sealed, shard->SealIndex(request.collection()));
  adminpb::TrainIndexResponse response;
  RETRO_ASSIGN_OR_RETURN(
      *response.mutable_operation(),
      operations_.Begin(Operations::Line::kMaintenance, [shard, sealed](const Operations::Progress& progress) {
        absl::Status status;
        do {
          RETRO_RETURN_IF_ERROR(progress(0));
          RETRO_RETURN_IF_ERROR(shard->CheckOpen());
          status = sealed(kAskEvery);
        } while (absl::IsDeadlineExceeded(status));
        return status;
      }));
  return response;
}

absl::StatusOr<adminpb::ListReplicasResponse> LocalAdmin::ListReplicas(const adminpb::ListReplicasRequest&,
                                                                       const CallContext&) {
  RETRO_ASSIGN_OR_RETURN(const auto shard, options_.open());
  const shardpb::Position position = shard->position();
  adminpb::ListReplicasResponse response;
  adminpb::Replica& replica = *response.add_replicas();
  replica.set_shard(options_.shard);
  replica.set_primary(true);
  replica.set_in_sync(true);
  replica.set_reachable(true);
  replica.set_epoch(position.epoch());
  replica.set_position(position.number());
  return response;
}

absl::StatusOr<adminpb::GetOperationResponse> LocalAdmin::GetOperation(const adminpb::GetOperationRequest& request,
                                                                       const CallContext&) {
  adminpb::GetOperationResponse response;
  RETRO_ASSIGN_OR_RETURN(*response.mutable_operation(), operations_.Get(request.operation_id()));
  return response;
}

}  // namespace retro
