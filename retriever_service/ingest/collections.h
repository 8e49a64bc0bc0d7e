// Collections as a router makes and drops them: on every shard, one after another's answer or side by side, so that a
// call that fails may have changed some shards. Both calls may be repeated, and then finish what was begun.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/document/protos.h"
#include "retriever_service/query/shard_map.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

// Requests are taken to be valid (serve/validate.h). Any thread; calls block until all shards have answered.
class Collections {
 public:
  // `shards` must outlive this. `own`: MakeCollectionSpec of this server's tokenizer and embedder; its chunk size is
  // not used, the default collection's is.
  Collections(ShardMap& shards, pb::CollectionSpec own) : shards_(shards), own_(std::move(own)) {}

  // What the request leaves out is this server's. FAILED_PRECONDITION (EMBEDDER_MISMATCH, TOKENIZER_MISMATCH) if what
  // it says is not: nobody could write to the collection or search it. ALREADY_EXISTS (COLLECTION_EXISTS). UNAVAILABLE
  // (WRITE_OUTCOME_UNKNOWN) if some shards have it now and some have not.
  absl::StatusOr<pb::CreateCollectionResponse> Create(const pb::CreateCollectionRequest& request,
                                                      const CallContext& context);
  // NOT_FOUND (COLLECTION_NOT_FOUND) if no shard has it. UNAVAILABLE (WRITE_OUTCOME_UNKNOWN) as above.
  absl::StatusOr<pb::DeleteCollectionResponse> Delete(const pb::DeleteCollectionRequest& request,
                                                      const CallContext& context);
  // Those that any of the shards that answer has, by name.
  absl::StatusOr<pb::ListCollectionsResponse> List(const CallContext& context);

 private:
  absl::StatusOr<pb::CollectionSpec> Complete(const pb::CollectionSpec& asked);
  // Of all shards' answers one.
  static absl::Status Together(const std::vector<absl::Status>& answers);

  ShardMap& shards_;
  const pb::CollectionSpec own_;
};

}  // namespace retro
