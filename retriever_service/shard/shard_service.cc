#include "retriever_service/shard/shard_service.h"

#include <grpcpp/server_context.h>

#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/rpc/status.h"
#include "common/rpc/unary.h"
#include "retro/shard/v1/shard.grpc.pb.h"

namespace retro {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

// Ends a stream before it has begun.
template <typename Response>
class RefusedStream final : public grpc::ServerWriteReactor<Response> {
 public:
  explicit RefusedStream(std::string_view what) {
    this->Finish(ToGrpcStatus(Error(absl::StatusCode::kUnimplemented, Reason::kNotSupported, what)));
  }
  void OnDone() override { delete this; }
};

class ShardService final : public shardpb::ShardService::CallbackService {
 public:
  ShardService(Shard& shard, WorkerPool& workers, Metrics& metrics) : shard_(shard), runner_(workers, metrics) {}

  ServerUnaryReactor* Search(CallbackServerContext* context, const shardpb::SearchRequest* request,
                             shardpb::SearchResponse* response) override {
    return Run(context, "shard.Search", request, response, &Shard::Search);
  }
  ServerUnaryReactor* Write(CallbackServerContext* context, const shardpb::WriteRequest* request,
                            shardpb::WriteResponse* response) override {
    return Run(context, "shard.Write", request, response, &Shard::Write);
  }
  ServerUnaryReactor* Delete(CallbackServerContext* context, const shardpb::DeleteRequest* request,
                             shardpb::DeleteResponse* response) override {
    return Run(context, "shard.Delete", request, response, &Shard::Delete);
  }
  ServerUnaryReactor* GetDocument(CallbackServerContext* context, const shardpb::GetDocumentRequest* request,
                                  shardpb::GetDocumentResponse* response) override {
    return Run(context, "shard.GetDocument", request, response, &Shard::GetDocument);
  }
  ServerUnaryReactor* GetChunks(CallbackServerContext* context, const shardpb::GetChunksRequest* request,
                                shardpb::GetChunksResponse* response) override {
    return Run(context, "shard.GetChunks", request, response, &Shard::GetChunks);
  }
  ServerUnaryReactor* ListDocuments(CallbackServerContext* context, const shardpb::ListDocumentsRequest* request,
                                    shardpb::ListDocumentsResponse* response) override {
    return Run(context, "shard.ListDocuments", request, response, &Shard::ListDocuments);
  }
  ServerUnaryReactor* Stats(CallbackServerContext* context, const shardpb::StatsRequest* request,
                            shardpb::StatsResponse* response) override {
    return Run(context, "shard.Stats", request, response, &Shard::Stats);
  }
  ServerUnaryReactor* GetShardInfo(CallbackServerContext* context, const shardpb::GetShardInfoRequest* request,
                                   shardpb::GetShardInfoResponse* response) override {
    return Run(context, "shard.GetShardInfo", request, response, &Shard::GetShardInfo);
  }

  grpc::ServerWriteReactor<shardpb::PullChangesResponse>* PullChanges(CallbackServerContext*,
                                                                      const shardpb::PullChangesRequest*) override {
    return new RefusedStream<shardpb::PullChangesResponse>(
        "PullChanges is not served yet: it lacks the replicas' side; the change log is kept for it");
  }
  grpc::ServerWriteReactor<shardpb::FetchSnapshotResponse>* FetchSnapshot(
      CallbackServerContext*, const shardpb::FetchSnapshotRequest*) override {
    return new RefusedStream<shardpb::FetchSnapshotResponse>(
        "FetchSnapshot is not served yet: it lacks consistent copies of the store");
  }

 private:
  template <typename Request, typename Response>
  ServerUnaryReactor* Run(CallbackServerContext* context, const char* name, const Request* request, Response* response,
                          absl::StatusOr<Response> (Shard::*method)(const Request&, const CallContext&)) {
    return runner_.Run(context, name, [this, request, response, method](const CallContext& call) -> absl::Status {
      absl::StatusOr<Response> answer = (shard_.*method)(*request, call);
      if (!answer.ok()) return answer.status();
      *response = *std::move(answer);
      return absl::OkStatus();
    });
  }

  Shard& shard_;
  UnaryRunner runner_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeShardService(Shard& shard, WorkerPool& workers, Metrics& metrics) {
  return std::make_unique<ShardService>(shard, workers, metrics);
}

}  // namespace retro
