#include "retriever_service/shard/shard_service.h"

#include <grpcpp/server_context.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/base/handover.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/base/sync.h"
#include "retriever_service/shard/message_parts.h"
#include "retro/shard/v1/shard.grpc.pb.h"

namespace retro {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

constexpr int kWriters = 16;  // of their own: a write waits for replicas, and must not take the place of searches
constexpr size_t kWritesWaitingMax = 1024;
constexpr int kInfoWorkers = 1;  // of GetShardInfo: behind long searches it would seem that nobody is there
constexpr size_t kInfosWaitingMax = 1024;
constexpr int kStreamThreads = 16;  // a replica each that waits for changes
constexpr size_t kStreamsWaitingMax = 64;
constexpr std::chrono::milliseconds kStreamRetryAfter{200};

constexpr size_t kStreamRequestBytesMax = size_t{64} << 10;  // names and numbers

absl::Status NoReplicas() {
  return Error(absl::StatusCode::kUnimplemented, Reason::kNotSupported,
               "this shard is not part of a cluster: start it with --cluster-file");
}

// A stream whose messages are sent one by one by a thread that waits for each.
class BlockingStream final : public grpc::ServerWriteReactor<ByteBuffer> {
 public:
  BlockingStream(const CallbackServerContext& context, const char* method, const UnaryRunner& runner)
      : context_(context), method_(method), access_(runner.access()), peers_(runner.peers()) {}

  // To the holder of a key that may have been taken away since the stream began.
  absl::Status Send(const google::protobuf::Message& response, const CallContext& call) {
    RETRO_RETURN_IF_ERROR(AdmitFurther(access_, method_, call));
    ByteBuffer bytes;
    SerializeMessage(response, bytes);
    const auto on_its_way = peers_.Begin(context_);
    const bool sent = SendAndWait(bytes);
    peers_.End(on_its_way);
    return sent ? absl::OkStatus() : CallerGoneError(/*deadline_passed=*/false);
  }
  void End(const grpc::Status& status) {
    HandOver(this);
    Finish(status);  // may delete this
  }

  void OnWriteDone(bool ok) override {
    const MutexLock lock(mutex_);
    sent_ = ok;
    done_.NotifyAll();
  }
  void OnDone() override {
    TakeOver(this);
    delete this;
  }

 private:
  bool SendAndWait(const ByteBuffer& response) {
    const MutexLock lock(mutex_);
    sent_.reset();
    StartWrite(&response);
    while (!sent_.has_value()) done_.Wait(mutex_);
    return *sent_;
  }

  const CallbackServerContext& context_;
  const char* const method_;
  AccessControl* const access_;
  PeerWatch& peers_;
  Mutex mutex_;
  CondVar done_;
  std::optional<bool> sent_ ABSL_GUARDED_BY(mutex_);  // the last one, once that is known
};

// Takes a request that comes in parts and hands it to a worker when it is whole; deletes itself at the end. Of one that
// was cut off, a document that lacks chunks is refused for that.
class PartsReader final : public grpc::ServerReadReactor<ByteBuffer> {
 public:
  using Work = std::function<absl::Status(const shardpb::WriteRequest& request, const CallContext& call)>;

  PartsReader(CallbackServerContext& context, const char* method, const UnaryRunner& runner, WorkerPool& workers,
              Metrics& metrics, Work work)
      : context_(context),
        peers_(runner.peers()),
        budget_(runner.budget()),
        workers_(workers),
        work_(std::move(work)),
        call_(MakeCallContext(context)),
        admitted_(Admit(runner.access(), context, method, call_)),
        record_(metrics, method, call_),
        held_(budget_, call_.key()) {
    if (admitted_.ok()) {
      Read();
    } else {
      End(admitted_);
    }
  }

  void OnReadDone(bool ok) override {
    TakeOver(this);
    peers_.End(read_);
    if (!ok) return CarryOut();
    if (const absl::Status status = TakePart(); !status.ok()) return End(status);
    Read();
  }
  void OnDone() override {
    TakeOver(this);
    delete this;
  }

 private:
  void Read() {
    read_ = peers_.Begin(context_);
    HandOver(this);
    StartRead(&part_);
  }
  absl::Status TakePart() {
    RETRO_RETURN_IF_ERROR(Hold(part_.Length()));
    shardpb::WriteRequest part;
    RETRO_RETURN_IF_ERROR(ParseRequest(part_, part, [this](size_t bytes) { return Hold(bytes); }));
    part_.Clear();
    RETRO_RETURN_IF_ERROR(AddPart(std::move(part), request_));
    return CheckCollectionField(request_, call_);
  }
  absl::Status Hold(size_t bytes) {
    if (held_.bytes() + bytes > budget_.bytes_max()) {
      return FieldError("changes", StrCat("have more than the ", budget_.bytes_max(),
                                          " bytes of writes that this shard may hold (--request-bytes-max)"));
    }
    return held_.TryAdd(bytes) ? absl::OkStatus() : UnaryRunner::MemoryFullError();
  }
  void CarryOut() {
    if (!workers_.Submit([this] { End(work_(request_, call_)); }, call_.key())) {
      End(QueueFullError("the queue of writes", UnaryRunner::kRetryAfter));
    }
  }
  void End(const absl::Status& status) {
    const grpc::Status answer = record_.Finish(status);
    HandOver(this);
    Finish(answer);  // may delete this
  }

  const CallbackServerContext& context_;
  PeerWatch& peers_;
  ByteBudget& budget_;
  WorkerPool& workers_;
  const Work work_;
  CallContext call_;
  const absl::Status admitted_;
  const CallRecord record_;
  HeldBytes held_;  // for both
  ByteBuffer part_;
  shardpb::WriteRequest request_;
  PeerWatch::Entry read_;  // the read that is under way
};

// shardpb::ShardService::CallbackService, but that messages come and go as bytes (see message.h).
using Rpcs = shardpb::ShardService;
using ServiceBase =
    Rpcs::WithRawCallbackMethod_Search<Rpcs::WithRawCallbackMethod_Write<Rpcs::WithRawCallbackMethod_Delete<
        Rpcs::WithRawCallbackMethod_CreateCollection<Rpcs::WithRawCallbackMethod_DropCollection<
            Rpcs::WithRawCallbackMethod_GetDocument<Rpcs::WithRawCallbackMethod_GetChunks<
                Rpcs::WithRawCallbackMethod_ListDocuments<Rpcs::WithRawCallbackMethod_Stats<
                    Rpcs::WithRawCallbackMethod_GetShardInfo<Rpcs::WithRawCallbackMethod_KeepLog<
                        Rpcs::WithRawCallbackMethod_WriteInParts<Rpcs::WithRawCallbackMethod_PullChanges<
                            Rpcs::WithRawCallbackMethod_FetchSnapshot<Rpcs::Service>>>>>>>>>>>>>>;

class ShardService final : public ServiceBase {
 public:
  ShardService(Shard& shard, WorkerPool& workers, Metrics& metrics, const UnaryOptions& options,
               Replication* replication)
      : shard_(shard),
        writers_(kWriters, kWritesWaitingMax),
        info_workers_(kInfoWorkers, kInfosWaitingMax),
        runner_(workers, metrics, options),
        write_runner_(writers_, metrics, options),
        info_runner_(info_workers_, runner_),
        metrics_(metrics),
        replication_(replication),
        streams_(replication == nullptr ? 1 : kStreamThreads, kStreamsWaitingMax) {
    runner_.Watch("reads");
    write_runner_.Watch("writes");
  }

  ServerUnaryReactor* Search(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run<shardpb::SearchRequest>(
        context, "shard.Search", request, reply, &Shard::Search, nullptr, [](const shardpb::SearchRequest& search) {
          return search.has_effort() && !search.effort().exact() && !search.has_barrier();
        });
  }
  ServerUnaryReactor* Write(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run(context, "shard.Write", request, reply, &Shard::Write, &write_runner_);
  }
  grpc::ServerReadReactor<ByteBuffer>* WriteInParts(CallbackServerContext* context, ByteBuffer* response) override {
    return new PartsReader(*context, "shard.WriteInParts", write_runner_, writers_, metrics_,
                           [this, response](const shardpb::WriteRequest& request, const CallContext& call) {
                             const auto written = shard_.Write(request, call);
                             if (written.ok()) SerializeMessage(*written, *response);
                             return written.status();
                           });
  }
  ServerUnaryReactor* Delete(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run(context, "shard.Delete", request, reply, &Shard::Delete, &write_runner_);
  }
  ServerUnaryReactor* CreateCollection(CallbackServerContext* context, const ByteBuffer* request,
                                       ByteBuffer* reply) override {
    return Run(context, "shard.CreateCollection", request, reply, &Shard::CreateCollection, &write_runner_);
  }
  ServerUnaryReactor* DropCollection(CallbackServerContext* context, const ByteBuffer* request,
                                     ByteBuffer* reply) override {
    return Run(context, "shard.DropCollection", request, reply, &Shard::DropCollection, &write_runner_);
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
    return Run(context, "shard.GetShardInfo", request, reply, &Shard::GetShardInfo, &info_runner_);
  }

  grpc::ServerWriteReactor<ByteBuffer>* PullChanges(CallbackServerContext* context,
                                                    const ByteBuffer* request) override {
    return Start<shardpb::PullChangesRequest>(
        context, "shard.PullChanges", *request,
        [this](const shardpb::PullChangesRequest& pull, BlockingStream& stream, const CallContext& call) {
          return replication_->Pull(pull, call,
                                    [&](const shardpb::PullChangesResponse& part) { return stream.Send(part, call); });
        });
  }
  grpc::ServerWriteReactor<ByteBuffer>* FetchSnapshot(CallbackServerContext* context,
                                                      const ByteBuffer* request) override {
    return Start<shardpb::FetchSnapshotRequest>(
        context, "shard.FetchSnapshot", *request,
        [this](const shardpb::FetchSnapshotRequest& fetch, BlockingStream& stream, const CallContext& call) {
          return replication_->SendSnapshot(
              fetch, call, [&](const shardpb::FetchSnapshotResponse& part) { return stream.Send(part, call); });
        });
  }
  ServerUnaryReactor* KeepLog(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return runner_.Run<shardpb::KeepLogRequest, shardpb::KeepLogResponse>(
        context, "shard.KeepLog", request, reply,
        [this](const shardpb::KeepLogRequest& message,
               const CallContext& call) -> absl::StatusOr<shardpb::KeepLogResponse> {
          if (replication_ == nullptr) return NoReplicas();
          return replication_->KeepLog(message, call);
        });
  }

 private:
  template <typename Request, typename Response>
  ServerUnaryReactor* Run(CallbackServerContext* context, const char* name, const ByteBuffer* request,
                          ByteBuffer* reply,
                          absl::StatusOr<Response> (Shard::*method)(const Request&, const CallContext&),
                          UnaryRunner* runner = nullptr, IsShort<Request> is_short = nullptr) {
    return (runner == nullptr ? runner_ : *runner)
        .Run<Request, Response>(
            context, name, request, reply,
            [this, method](const Request& message, const CallContext& call) { return (shard_.*method)(message, call); },
            is_short);
  }

  // `work` runs on a thread of its own kind: replicas wait long, and must not take the place of searches. `request` is
  // gRPC's, until the stream's OnDone.
  template <typename Request>
  BlockingStream* Start(
      CallbackServerContext* context, const char* name, const ByteBuffer& request,
      const std::function<absl::Status(const Request&, BlockingStream& stream, const CallContext& call)>& work) {
    auto* stream = new BlockingStream(*context, name, runner_);  // deletes itself
    CallContext call = MakeCallContext(*context);
    absl::Status status = Admit(runner_.access(), *context, name, call);
    const auto record = std::make_shared<CallRecord>(metrics_, name, call);
    if (status.ok() && replication_ == nullptr) status = NoReplicas();
    if (status.ok()) {
      const auto carry_out = [stream, record, work, call, &request] {
        Request message;
        absl::Status status = ReadStreamRequest(request, message);
        record->NoteRequest(message);
        if (status.ok()) status = work(message, *stream, call);
        stream->End(record->Finish(status));
      };
      if (streams_.Submit(carry_out)) return stream;
      status = QueueFullError("the queue of replicas", kStreamRetryAfter);
    }
    stream->End(record->Finish(status));
    return stream;
  }

  static absl::Status ReadStreamRequest(const ByteBuffer& bytes, google::protobuf::Message& message) {
    if (bytes.Length() > kStreamRequestBytesMax) {
      return Error(absl::StatusCode::kInvalidArgument, Reason::kInvalidField,
                   StrCat("the request has more than ", kStreamRequestBytesMax, " bytes"));
    }
    return ParseRequest(bytes, message, [](size_t) { return absl::OkStatus(); });
  }

  Shard& shard_;
  WorkerPool writers_, info_workers_;
  UnaryRunner runner_, write_runner_, info_runner_;
  Metrics& metrics_;
  Replication* const replication_;
  WorkerPool streams_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeShardService(Shard& shard, WorkerPool& workers, Metrics& metrics,
                                                const UnaryOptions& options, Replication* replication) {
  return std::make_unique<ShardService>(shard, workers, metrics, options, replication);
}

}  // namespace retro
