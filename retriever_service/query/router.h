// What the retriever's RPCs ask of the store, over all shards: embed once, ask every shard, merge.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/document/protos.h"
#include "retriever_service/query/embedding.h"
#include "retriever_service/query/shard_map.h"
#include "retriever_service/query/waiting_reads.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

// Requests are taken to be valid (serve/validate.h). Any thread; calls block.
class Router {
 public:
  // Both must outlive this. `waiting_reads_max`: see WaitingReads.
  Router(ShardMap& shards, Embedding& embedding, int waiting_reads_max)
      : shards_(shards), embedding_(embedding), waiting_(waiting_reads_max) {}

  // `arrival` is when the call came in: its wait for a worker counts as queue time.
  absl::StatusOr<pb::SearchResponse> Search(const pb::SearchRequest& request, const CallContext& context,
                                            std::chrono::steady_clock::time_point arrival);
  absl::StatusOr<pb::EmbedResponse> Embed(const pb::EmbedRequest& request, const CallContext& context);
  absl::StatusOr<pb::DeleteDocumentsResponse> DeleteDocuments(const pb::DeleteDocumentsRequest& request,
                                                              const CallContext& context);
  absl::StatusOr<pb::GetDocumentResponse> GetDocument(const pb::GetDocumentRequest& request,
                                                      const CallContext& context);
  absl::StatusOr<pb::GetChunksResponse> GetChunks(const pb::GetChunksRequest& request, const CallContext& context);
  absl::StatusOr<pb::ListDocumentsResponse> ListDocuments(const pb::ListDocumentsRequest& request,
                                                          const CallContext& context);
  absl::StatusOr<pb::StatsResponse> Stats(const CallContext& context);

 private:
  ShardMap& shards_;
  Embedding& embedding_;
  WaitingReads waiting_;
};

}  // namespace retro
