#include "retriever_service/serve/retriever_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/document_limits.h"
#include "retriever_service/ingest/ordered_writer.h"
#include "retriever_service/query/consistency_token.h"
#include "retriever_service/query/limits.h"
#include "retriever_service/serve/ingest_stream.h"
#include "retriever_service/serve/validate.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"

namespace retro {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

// How often a call that waits for its documents looks whether its caller is still there.
constexpr std::chrono::milliseconds kCheckEvery{50};

// What becomes of the documents of one UpsertDocuments; they outlive the call if its caller leaves.
struct UpsertedDocuments {
  UpsertedDocuments(const CallContext& caller, std::string store_id, size_t bytes, ByteBudget& budget)
      : call(caller), bytes(bytes), held(budget, caller.key()) {
    token.set_store_id(std::move(store_id));
    call.cancelled = [this] { return gone.load(); };
    call.hold = nullptr;  // which ends with the call
  }
  void Add(const WriteResult& result) {
    const MutexLock lock(mutex);
    *response.add_results() = result.document;
    if (result.status.ok()) Cover(token, result.shard, result.position);
    reported.NotifyOne();
  }
  absl::StatusOr<pb::UpsertDocumentsResponse> WaitFor(int documents, const CallContext& caller) {
    const MutexLock lock(mutex);
    while (response.results_size() < documents) {
      if (absl::Status status = caller.Check(); !status.ok()) {
        gone = true;
        held.Add(bytes);  // no longer the call's, and in memory until the last one's turn has come
        return status;
      }
      reported.WaitUntil(mutex, std::chrono::steady_clock::now() + kCheckEvery);
    }
    response.set_consistency_token(EncodeConsistencyToken(token));
    return std::move(response);
  }

  CallContext call;  // of the documents
  const size_t bytes;
  HeldBytes held;
  std::atomic<bool> gone = false;
  Mutex mutex;
  CondVar reported;
  pb::UpsertDocumentsResponse response ABSL_GUARDED_BY(mutex);
  shardpb::ConsistencyToken token ABSL_GUARDED_BY(mutex);
};

// It does not wait for the embedder or for a token, and does not compare all there is.
bool IsShortSearch(const pb::SearchRequest& request) {
  return request.consistency_token().empty() && !request.effort().exact() &&
         std::all_of(request.queries().begin(), request.queries().end(),
                     [](const pb::Query& query) { return query.has_vector(); });
}

// RetrieverService::CallbackService, but that messages come as bytes (see unary.h and ingest_stream.h).
using Rpcs = pb::RetrieverService;
using ServiceBase =
    Rpcs::WithRawCallbackMethod_Search<Rpcs::WithRawCallbackMethod_Embed<Rpcs::WithRawCallbackMethod_CutChunks<
        Rpcs::WithRawCallbackMethod_Ingest<Rpcs::WithRawCallbackMethod_UpsertDocuments<
            Rpcs::WithRawCallbackMethod_DeleteDocuments<Rpcs::WithRawCallbackMethod_GetDocument<
                Rpcs::WithRawCallbackMethod_GetChunks<Rpcs::WithRawCallbackMethod_ListDocuments<
                    Rpcs::WithRawCallbackMethod_CreateCollection<Rpcs::WithRawCallbackMethod_ListCollections<
                        Rpcs::WithRawCallbackMethod_DeleteCollection<Rpcs::WithRawCallbackMethod_Stats<
                            Rpcs::WithRawCallbackMethod_GetInfo<Rpcs::Service>>>>>>>>>>>>>>;

class RetrieverService final : public ServiceBase {
 public:
  explicit RetrieverService(const RetrieverParts& parts) : parts_(parts) {}

  ServerUnaryReactor* Search(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    const auto arrival = std::chrono::steady_clock::now();
    return Run<pb::SearchRequest, pb::SearchResponse>(
        context, "Search", request, reply,
        [this, arrival](pb::SearchRequest& message, const CallContext& call) {
          auto found = parts_.router.Search(message, call, arrival);
          if (found.ok()) parts_.retriever_metrics.OnSearch(*found);
          return found;
        },
        nullptr, parts_.searches_here ? &IsShortSearch : nullptr);
  }

  ServerUnaryReactor* Embed(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run<pb::EmbedRequest, pb::EmbedResponse>(
        context, "Embed", request, reply,
        [this](pb::EmbedRequest& message, const CallContext& call) { return parts_.router.Embed(message, call); });
  }

  ServerUnaryReactor* CutChunks(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run<pb::CutChunksRequest, pb::CutChunksResponse>(
        context, "CutChunks", request, reply,
        [this](pb::CutChunksRequest& message, const CallContext& call) { return parts_.writer.Cut(message, call); },
        &parts_.cut_runner);
  }

  IngestReactor* Ingest(CallbackServerContext* context) override { return StartIngestStream(parts_, context); }

  ServerUnaryReactor* UpsertDocuments(CallbackServerContext* context, const ByteBuffer* request,
                                      ByteBuffer* reply) override {
    return Run<pb::UpsertDocumentsRequest, pb::UpsertDocumentsResponse>(
        context, "UpsertDocuments", request, reply,
        [this](pb::UpsertDocumentsRequest& message, const CallContext& call) { return Upsert(message, call); },
        &parts_.write_runner);
  }

  ServerUnaryReactor* DeleteDocuments(CallbackServerContext* context, const ByteBuffer* request,
                                      ByteBuffer* reply) override {
    return Run<pb::DeleteDocumentsRequest, pb::DeleteDocumentsResponse>(
        context, "DeleteDocuments", request, reply,
        [this](pb::DeleteDocumentsRequest& message, const CallContext& call) {
          return parts_.router.DeleteDocuments(message, call);
        },
        &parts_.write_runner);
  }

  ServerUnaryReactor* GetDocument(CallbackServerContext* context, const ByteBuffer* request,
                                  ByteBuffer* reply) override {
    return Run<pb::GetDocumentRequest, pb::GetDocumentResponse>(
        context, "GetDocument", request, reply, [this](pb::GetDocumentRequest& message, const CallContext& call) {
          return parts_.router.GetDocument(message, call);
        });
  }

  ServerUnaryReactor* GetChunks(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run<pb::GetChunksRequest, pb::GetChunksResponse>(
        context, "GetChunks", request, reply, [this](pb::GetChunksRequest& message, const CallContext& call) {
          return parts_.router.GetChunks(message, call);
        });
  }

  ServerUnaryReactor* ListDocuments(CallbackServerContext* context, const ByteBuffer* request,
                                    ByteBuffer* reply) override {
    return Run<pb::ListDocumentsRequest, pb::ListDocumentsResponse>(
        context, "ListDocuments", request, reply, [this](pb::ListDocumentsRequest& message, const CallContext& call) {
          return parts_.router.ListDocuments(message, call);
        });
  }

  ServerUnaryReactor* CreateCollection(CallbackServerContext* context, const ByteBuffer* request,
                                       ByteBuffer* reply) override {
    return Run<pb::CreateCollectionRequest, pb::CreateCollectionResponse>(
        context, "CreateCollection", request, reply,
        [this](const pb::CreateCollectionRequest& message, const CallContext& call) {
          return parts_.collections.Create(message, call);
        },
        &parts_.write_runner);
  }

  ServerUnaryReactor* ListCollections(CallbackServerContext* context, const ByteBuffer* request,
                                      ByteBuffer* reply) override {
    return Run<pb::ListCollectionsRequest, pb::ListCollectionsResponse>(
        context, "ListCollections", request, reply,
        [this](const pb::ListCollectionsRequest&, const CallContext& call) { return parts_.collections.List(call); });
  }

  ServerUnaryReactor* DeleteCollection(CallbackServerContext* context, const ByteBuffer* request,
                                       ByteBuffer* reply) override {
    return Run<pb::DeleteCollectionRequest, pb::DeleteCollectionResponse>(
        context, "DeleteCollection", request, reply,
        [this](const pb::DeleteCollectionRequest& message, const CallContext& call) {
          return parts_.collections.Delete(message, call);
        },
        &parts_.write_runner);
  }

  ServerUnaryReactor* Stats(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run<pb::StatsRequest, pb::StatsResponse>(
        context, "Stats", request, reply,
        [this](const pb::StatsRequest&, const CallContext& call) { return parts_.router.Stats(call); });
  }

  ServerUnaryReactor* GetInfo(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override {
    return Run<pb::GetInfoRequest, pb::GetInfoResponse>(
        context, "GetInfo", request, reply,
        [this](const pb::GetInfoRequest&, const CallContext& call) { return Info(call); });
  }

 private:
  // Validates, where there is something to validate, and works.
  template <typename Request, typename Response, typename Work>
  ServerUnaryReactor* Run(CallbackServerContext* context, const char* method, const ByteBuffer* request,
                          ByteBuffer* reply, Work work, UnaryRunner* runner = nullptr,
                          IsShort<Request> is_short = nullptr) {
    return (runner == nullptr ? parts_.runner : *runner)
        .Run<Request, Response>(
            context, method, request, reply,
            [work = std::move(work)](Request& message, const CallContext& call) -> absl::StatusOr<Response> {
              if constexpr (requires { Validate(message); }) RETRO_RETURN_IF_ERROR(Validate(message));
              return work(message, call);
            },
            is_short);
  }

  absl::StatusOr<pb::UpsertDocumentsResponse> Upsert(pb::UpsertDocumentsRequest& request, const CallContext& call);
  absl::StatusOr<pb::GetInfoResponse> Info(const CallContext& call) const;

  const RetrieverParts parts_;
};

absl::StatusOr<pb::UpsertDocumentsResponse> RetrieverService::Upsert(pb::UpsertDocumentsRequest& request,
                                                                     const CallContext& call) {
  // As they are in memory, where what is small takes many times the bytes that came.
  const size_t bytes = std::max(request.ByteSizeLong(), request.SpaceUsedLong());
  const auto written =
      std::make_shared<UpsertedDocuments>(call, parts_.shards.store_id(), bytes, parts_.write_runner.budget());
  const auto writer = OrderedWriter::Create(parts_.writer, parts_.ingest_workers);
  for (int i = 0; i < request.writes_size(); ++i) {
    writer->Submit(request.collection(), std::move(*request.mutable_writes(i)), StrCat("writes[", i, "]"),
                   written->call, [this, written](const WriteResult& result) {
                     parts_.retriever_metrics.OnDocument(result.document);
                     written->Add(result);
                   });
  }
  return written->WaitFor(request.writes_size(), call);
}

absl::StatusOr<pb::GetInfoResponse> RetrieverService::Info(const CallContext& call) const {
  RETRO_ASSIGN_OR_RETURN(const auto collections, parts_.shards.Collections(call));
  pb::GetInfoResponse info;
  info.set_version(RETRO_VERSION);
  info.set_store_id(parts_.shards.store_id());
  info.set_embedder_fingerprint(parts_.embedding.info().fingerprint);
  info.set_embedder_name(parts_.embedding.info().name);
  info.set_embedder_length_max(static_cast<uint32_t>(parts_.embedding.info().max_tokens));
  info.mutable_collections()->Assign(collections.begin(), collections.end());
  info.set_shard_count(parts_.shards.size());
  info.mutable_limits()->set_document_text_bytes_max(kTextBytesMax);
  info.mutable_limits()->set_message_bytes_max(parts_.message_bytes_max);
  info.mutable_limits()->set_queries_max(kQueriesMax);
  info.mutable_limits()->set_k_max(kNeighboursMax);
  return info;
}

}  // namespace

std::unique_ptr<grpc::Service> MakeRetrieverService(const RetrieverParts& parts) {
  return std::make_unique<RetrieverService>(parts);
}

}  // namespace retro
