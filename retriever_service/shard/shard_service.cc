#include "retriever_service/shard/shard_service.h"

#include <grpcpp/server_context.h>

#include <string>
#include <utility>

#include "common/base/error.h"
#include "retro/shard/v1/shard.grpc.pb.h"

namespace retro {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

// Ends a stream before it has begun.
template <typename Response>
class RefusedStream final : public grpc::ServerWriteReactor<Response> {
 public:
  explicit RefusedStream(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

// shardpb::ShardService::CallbackService, but that unary requests come as bytes (see unary.h).
using Rpcs = shardpb::ShardService;
using ServiceBase = Rpcs::WithRawCallbackMethod_Search<
    Rpcs::WithRawCallbackMethod_Write<Rpcs::WithRawCallbackMethod_Delete<Rpcs::WithRawCallbackMethod_GetDocument<
        Rpcs::WithRawCallbackMethod_GetChunks<Rpcs::WithRawCallbackMethod_ListDocuments<
            Rpcs::WithRawCallbackMethod_Stats<Rpcs::WithRawCallbackMethod_GetShardInfo<
                Rpcs::WithCallbackMethod_PullChanges<Rpcs::WithCallbackMethod_FetchSnapshot<Rpcs::Service>>>>>>>>>>;

class ShardService final : public ServiceBase {
 public:
  ShardService(Shard& shard, WorkerPool& workers, Metrics& metrics, const UnaryOptions& options)
      : shard_(shard), runner_(workers, metrics, options), metrics_(metrics) {}

  ServerUnaryReactor* Search(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run(context, "shard.Search", request, reply, &Shard::Search);
  }
  ServerUnaryReactor* Write(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run(context, "shard.Write", request, reply, &Shard::Write);
  }
  ServerUnaryReactor* Delete(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run(context, "shard.Delete", request, reply, &Shard::Delete);
  }
  ServerUnaryReactor* GetDocument(CallbackServerContext* context, const ByteBuffer* request,
                                  ByteBuffer* reply) override {
    return Run(context, "shard.GetDocument", request, reply, &Shard::GetDocument);
  }
  ServerUnaryReactor* GetChunks(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run(context, "shard.GetChunks", request, reply, &Shard::GetChunks);
  }
  ServerUnaryReactor* ListDocuments(CallbackServerContext* context, const ByteBuffer* request,
                                    ByteBuffer* reply) override {
    return Run(context, "shard.ListDocuments", request, reply, &Shard::ListDocuments);
  }
  ServerUnaryReactor* Stats(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run(context, "shard.Stats", request, reply, &Shard::Stats);
  }
  ServerUnaryReactor* GetShardInfo(CallbackServerContext* context, const ByteBuffer* request,
                                   ByteBuffer* reply) override {
    return Run(context, "shard.GetShardInfo", request, reply, &Shard::GetShardInfo);
  }

  grpc::ServerWriteReactor<shardpb::PullChangesResponse>* PullChanges(CallbackServerContext* context,
                                                                      const shardpb::PullChangesRequest*) override {
    return Refuse<shardpb::PullChangesResponse>(
        context, "shard.PullChanges",
        "PullChanges is not served yet: it lacks the replicas' side; the change log is kept for it");
  }
  grpc::ServerWriteReactor<shardpb::FetchSnapshotResponse>* FetchSnapshot(
      CallbackServerContext* context, const shardpb::FetchSnapshotRequest*) override {
    return Refuse<shardpb::FetchSnapshotResponse>(
        context, "shard.FetchSnapshot", "FetchSnapshot is not served yet: it lacks consistent copies of the store");
  }

 private:
  template <typename Request, typename Response>
  ServerUnaryReactor* Run(CallbackServerContext* context, const char* name, const ByteBuffer* request,
                          ByteBuffer* reply,
                          absl::StatusOr<Response> (Shard::*method)(const Request&, const CallContext&)) {
    return runner_.Run<Request, Response>(
        context, name, request, reply,
        [this, method](const Request& message, const CallContext& call) { return (shard_.*method)(message, call); });
  }

  template <typename Response>
  grpc::ServerWriteReactor<Response>* Refuse(CallbackServerContext* context, const char* name, std::string_view what) {
    CallContext call = MakeCallContext(*context);
    absl::Status status = Admit(runner_.access(), *context, name, call);
    if (status.ok()) status = Error(absl::StatusCode::kUnimplemented, Reason::kNotSupported, what);
    return new RefusedStream<Response>(CallRecord(metrics_, name, call).Finish(status));
  }

  Shard& shard_;
  UnaryRunner runner_;
  Metrics& metrics_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeShardService(Shard& shard, WorkerPool& workers, Metrics& metrics,
                                                const UnaryOptions& options) {
  return std::make_unique<ShardService>(shard, workers, metrics, options);
}

}  // namespace retro
