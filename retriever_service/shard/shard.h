// A shard as a router sees it: one method an RPC of retro/shard/v1/shard.proto, whether it is in this process
// (local_shard.h) or another (remote_shard.h). The messages' comments are the contract; errors carry the reasons of
// common/base/error.h.
#pragma once

#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/document/protos.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// All methods may be called from any thread and block until they have the answer or `context` says that nobody waits
// for it.
class Shard {
 public:
  virtual ~Shard() = default;

  virtual absl::StatusOr<shardpb::SearchResponse> Search(const shardpb::SearchRequest& request,
                                                         const CallContext& context) = 0;
  // OK: every change without an error of its own, or CHANGE_OUTCOME_NEEDS_CHUNKS, is durable and searchable. Changes of
  // calls that run side by side share disk writes but have no order among them. A failed call may have done some of its
  // changes; repeating it is safe.
  virtual absl::StatusOr<shardpb::WriteResponse> Write(const shardpb::WriteRequest& request,
                                                       const CallContext& context) = 0;
  virtual absl::StatusOr<shardpb::DeleteResponse> Delete(const shardpb::DeleteRequest& request,
                                                         const CallContext& context) = 0;
  // OK if it exists just so already; COLLECTION_EXISTS if it was made otherwise. INVALID_ARGUMENT if there are too
  // many.
  virtual absl::StatusOr<shardpb::CreateCollectionResponse> CreateCollection(
      const shardpb::CreateCollectionRequest& request, const CallContext& context) = 0;
  // Calls that use it while it goes get COLLECTION_NOT_FOUND. INVALID_ARGUMENT for the default one.
  virtual absl::StatusOr<shardpb::DropCollectionResponse> DropCollection(const shardpb::DropCollectionRequest& request,
                                                                         const CallContext& context) = 0;
  virtual absl::StatusOr<shardpb::GetDocumentResponse> GetDocument(const shardpb::GetDocumentRequest& request,
                                                                   const CallContext& context) = 0;
  virtual absl::StatusOr<shardpb::GetChunksResponse> GetChunks(const shardpb::GetChunksRequest& request,
                                                               const CallContext& context) = 0;
  virtual absl::StatusOr<shardpb::ListDocumentsResponse> ListDocuments(const shardpb::ListDocumentsRequest& request,
                                                                       const CallContext& context) = 0;
  virtual absl::StatusOr<shardpb::StatsResponse> Stats(const shardpb::StatsRequest& request,
                                                       const CallContext& context) = 0;
  virtual absl::StatusOr<shardpb::GetShardInfoResponse> GetShardInfo(const shardpb::GetShardInfoRequest& request,
                                                                     const CallContext& context) = 0;
};

}  // namespace retro
