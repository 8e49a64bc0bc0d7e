// A shard in another process, over gRPC.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "retriever_service/shard/shard.h"
#include "retro/shard/v1/shard.grpc.pb.h"

namespace retro {

// Calls carry the caller's deadline less a margin for the way back, and its request id; a caller who leaves cancels
// them. A shard that does not answer is UNAVAILABLE (SHARD_UNAVAILABLE); a change whose answer is lost has the reason
// WRITE_OUTCOME_UNKNOWN.
class GrpcShard : public Shard {
 public:
  // `address` names the shard in errors.
  GrpcShard(const std::shared_ptr<grpc::Channel>& channel, std::string address);

  absl::StatusOr<shardpb::SearchResponse> Search(const shardpb::SearchRequest& request,
                                                 const CallContext& context) override;
  absl::StatusOr<shardpb::WriteResponse> Write(const shardpb::WriteRequest& request,
                                               const CallContext& context) override;
  absl::StatusOr<shardpb::DeleteResponse> Delete(const shardpb::DeleteRequest& request,
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

 private:
  const std::string address_;
  const std::unique_ptr<shardpb::ShardService::Stub> stub_;
};

}  // namespace retro
