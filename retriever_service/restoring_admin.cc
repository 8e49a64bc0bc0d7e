#include "retriever_service/restoring_admin.h"

#include <utility>

#include "common/base/status_macros.h"
#include "retriever_service/ingest/snapshot_restore.h"
#include "retriever_service/shard/operations.h"
#include "retriever_service/shard/snapshots.h"

namespace retro {
namespace {

class RestoringAdmin final : public Admin {
 public:
  RestoringAdmin(std::unique_ptr<Admin> of_shards, ShardMap& shards, const std::string& snapshot_dir)
      : of_shards_(std::move(of_shards)), shards_(shards), snapshots_(snapshot_dir) {}

#define RETRO_PASS_ON(Method)                                                               \
  absl::StatusOr<adminpb::Method##Response> Method(const adminpb::Method##Request& request, \
                                                   const CallContext& context) override {   \
    return of_shards_->Method(request, context);                                            \
  }
  RETRO_PASS_ON(CreateSnapshot)
  RETRO_PASS_ON(Verify)
  RETRO_PASS_ON(Compact)
  RETRO_PASS_ON(SetReadOnly)
  RETRO_PASS_ON(TrainIndex)
  RETRO_PASS_ON(ListReplicas)
  RETRO_PASS_ON(Promote)
#undef RETRO_PASS_ON

  absl::StatusOr<adminpb::ListSnapshotsResponse> ListSnapshots(const adminpb::ListSnapshotsRequest&,
                                                               const CallContext&) override {
    RETRO_ASSIGN_OR_RETURN(const auto snapshots, snapshots_.List());
    adminpb::ListSnapshotsResponse response;
    response.mutable_snapshots()->Assign(snapshots.begin(), snapshots.end());
    return response;
  }

  absl::StatusOr<adminpb::DeleteSnapshotResponse> DeleteSnapshot(const adminpb::DeleteSnapshotRequest& request,
                                                                 const CallContext&) override {
    RETRO_RETURN_IF_ERROR(snapshots_.Delete(request.name()));
    return adminpb::DeleteSnapshotResponse();
  }

  absl::StatusOr<adminpb::RestoreSnapshotResponse> RestoreSnapshot(const adminpb::RestoreSnapshotRequest& request,
                                                                   const CallContext&) override {
    RETRO_ASSIGN_OR_RETURN(const auto snapshot, snapshots_.Find(request.name()));
    adminpb::RestoreSnapshotResponse response;
    RETRO_ASSIGN_OR_RETURN(
        *response.mutable_operation(),
        operations_.Begin(Operations::Line::kSnapshots, [this, snapshot](const Operations::Progress& progress) {
          return retro::RestoreSnapshot(snapshots_.PathOf(snapshot.name()), snapshot, shards_, progress);
        }));
    return response;
  }

  absl::StatusOr<adminpb::GetOperationResponse> GetOperation(const adminpb::GetOperationRequest& request,
                                                             const CallContext& context) override {
    const auto own = operations_.Get(request.operation_id());
    if (!own.ok()) return of_shards_->GetOperation(request, context);
    adminpb::GetOperationResponse response;
    *response.mutable_operation() = *own;
    return response;
  }

 private:
  const std::unique_ptr<Admin> of_shards_;
  ShardMap& shards_;
  const Snapshots snapshots_;
  Operations operations_;  // last: it uses the above
};

}  // namespace

std::unique_ptr<Admin> MakeRestoringAdmin(std::unique_ptr<Admin> of_shards, ShardMap& shards,
                                          const std::string& snapshot_dir) {
  return std::make_unique<RestoringAdmin>(std::move(of_shards), shards, snapshot_dir);
}

}  // namespace retro
