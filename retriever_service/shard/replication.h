// What replicas of a shard ask of each other, as the RPC layer sees it: PullChanges, FetchSnapshot and KeepLog.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/document/protos.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// Any thread; calls block.
class Replication {
 public:
  virtual ~Replication() = default;

  // Some changes, in parts if the caller takes them; after a while without any, none but what says where the primary
  // is. An error of the sink ends it.
  using ChangesSink = std::function<absl::Status(const shardpb::PullChangesResponse&)>;
  virtual absl::Status Pull(const shardpb::PullChangesRequest& request, const CallContext& context,
                            const ChangesSink& send) = 0;
  // Likewise.
  using SnapshotSink = std::function<absl::Status(const shardpb::FetchSnapshotResponse&)>;
  virtual absl::Status SendSnapshot(const shardpb::FetchSnapshotRequest& request, const CallContext& context,
                                    const SnapshotSink& send) = 0;
  virtual absl::StatusOr<shardpb::KeepLogResponse> KeepLog(const shardpb::KeepLogRequest& request,
                                                           const CallContext& context) = 0;
};

}  // namespace retro
