// Maintenance of a shard in this process.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "retriever_service/shard/admin.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/shard/operations.h"
#include "retriever_service/shard/snapshots.h"

namespace retro {

struct LocalAdminOptions {
  uint32_t shard = 0;  // the number that calls must name
  uint32_t first_slot = 0;
  uint32_t last_slot = 4095;
  std::string snapshot_dir;  // "" for none
  // The shard, while it is open.
  std::function<absl::StatusOr<std::shared_ptr<LocalShard>>()> open;
};

// Serves what one shard can do for itself. Restoring is a router's work: it may be onto other shards.
class LocalAdmin : public Admin {
 public:
  explicit LocalAdmin(LocalAdminOptions options) : options_(std::move(options)), snapshots_(options_.snapshot_dir) {}

  absl::StatusOr<adminpb::CreateSnapshotResponse> CreateSnapshot(const adminpb::CreateSnapshotRequest& request,
                                                                 const CallContext& context) override;
  absl::StatusOr<adminpb::ListSnapshotsResponse> ListSnapshots(const adminpb::ListSnapshotsRequest& request,
                                                               const CallContext& context) override;
  absl::StatusOr<adminpb::DeleteSnapshotResponse> DeleteSnapshot(const adminpb::DeleteSnapshotRequest& request,
                                                                 const CallContext& context) override;
  absl::StatusOr<adminpb::VerifyResponse> Verify(const adminpb::VerifyRequest& request,
                                                 const CallContext& context) override;
  absl::StatusOr<adminpb::CompactResponse> Compact(const adminpb::CompactRequest& request,
                                                   const CallContext& context) override;
  absl::StatusOr<adminpb::SetReadOnlyResponse> SetReadOnly(const adminpb::SetReadOnlyRequest& request,
                                                           const CallContext& context) override;
  absl::StatusOr<adminpb::TrainIndexResponse> TrainIndex(const adminpb::TrainIndexRequest& request,
                                                         const CallContext& context) override;
  // The shard alone: a standalone store has no other replica.
  absl::StatusOr<adminpb::ListReplicasResponse> ListReplicas(const adminpb::ListReplicasRequest& request,
                                                             const CallContext& context) override;
  absl::StatusOr<adminpb::GetOperationResponse> GetOperation(const adminpb::GetOperationRequest& request,
                                                             const CallContext& context) override;

 protected:
  absl::Status CheckShard(uint32_t shard) const;
  const Snapshots& snapshots() const { return snapshots_; }
  Operations& operations() { return operations_; }

 private:
  const LocalAdminOptions options_;
  const Snapshots snapshots_;
  Operations operations_;  // last: it uses the above
};

}  // namespace retro
