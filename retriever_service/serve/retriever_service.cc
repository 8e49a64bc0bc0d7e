#include "retriever_service/serve/retriever_service.h"

#include <grpcpp/server_context.h>

#include <chrono>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/document_limits.h"
#include "common/rpc/status.h"
#include "common/rpc/unary.h"
#include "common/tokenizer/chunker.h"
#include "retriever_service/ingest/ordered_writer.h"
#include "retriever_service/query/consistency_token.h"
#include "retriever_service/query/limits.h"
#include "retriever_service/serve/ingest_stream.h"
#include "retriever_service/serve/validate.h"
#include "retro/admin/v1/admin.grpc.pb.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"

namespace retro {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

absl::Status NotSupported(std::string_view what) {
  return Error(absl::StatusCode::kUnimplemented, Reason::kNotSupported, what);
}

ServerUnaryReactor* Refuse(CallbackServerContext* context, std::string_view what) {
  ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(NotSupported(what)));
  return reactor;
}

// RetrieverService::CallbackService, but for Ingest, which reads its messages itself (see ingest_stream.h).
using Rpcs = pb::RetrieverService;
using ServiceBase = Rpcs::WithCallbackMethod_Search<
    Rpcs::WithCallbackMethod_Embed<Rpcs::WithCallbackMethod_CutChunks<Rpcs::WithRawCallbackMethod_Ingest<
        Rpcs::WithCallbackMethod_UpsertDocuments<Rpcs::WithCallbackMethod_DeleteDocuments<
            Rpcs::WithCallbackMethod_GetDocument<Rpcs::WithCallbackMethod_GetChunks<
                Rpcs::WithCallbackMethod_ListDocuments<Rpcs::WithCallbackMethod_CreateCollection<
                    Rpcs::WithCallbackMethod_ListCollections<Rpcs::WithCallbackMethod_DeleteCollection<
                        Rpcs::WithCallbackMethod_Stats<Rpcs::WithCallbackMethod_GetInfo<Rpcs::Service>>>>>>>>>>>>>>;

class RetrieverService final : public ServiceBase {
 public:
  explicit RetrieverService(const RetrieverParts& parts) : parts_(parts), runner_(parts.workers, parts.metrics) {}

  ServerUnaryReactor* Search(CallbackServerContext* context, const pb::SearchRequest* request,
                             pb::SearchResponse* response) override {
    const auto arrival = std::chrono::steady_clock::now();
    return Run(context, "Search", request, response, [this, request, arrival](const CallContext& call) {
      auto found = parts_.router.Search(*request, call, arrival);
      if (found.ok()) parts_.retriever_metrics.OnSearch(*found);
      return found;
    });
  }

  ServerUnaryReactor* Embed(CallbackServerContext* context, const pb::EmbedRequest* request,
                            pb::EmbedResponse* response) override {
    return Run(context, "Embed", request, response,
               [this, request](const CallContext& call) { return parts_.router.Embed(*request, call); });
  }

  ServerUnaryReactor* CutChunks(CallbackServerContext* context, const pb::CutChunksRequest* request,
                                pb::CutChunksResponse* response) override {
    return Run(context, "CutChunks", request, response, [this, request](const CallContext&) { return Cut(*request); });
  }

  IngestReactor* Ingest(CallbackServerContext* context) override { return StartIngestStream(parts_, context); }

  ServerUnaryReactor* UpsertDocuments(CallbackServerContext* context, const pb::UpsertDocumentsRequest* request,
                                      pb::UpsertDocumentsResponse* response) override {
    return Run(context, "UpsertDocuments", request, response,
               [this, request](const CallContext& call) { return Upsert(*request, call); });
  }

  ServerUnaryReactor* DeleteDocuments(CallbackServerContext* context, const pb::DeleteDocumentsRequest* request,
                                      pb::DeleteDocumentsResponse* response) override {
    return Run(context, "DeleteDocuments", request, response,
               [this, request](const CallContext& call) { return parts_.router.DeleteDocuments(*request, call); });
  }

  ServerUnaryReactor* GetDocument(CallbackServerContext* context, const pb::GetDocumentRequest* request,
                                  pb::GetDocumentResponse* response) override {
    return Run(context, "GetDocument", request, response,
               [this, request](const CallContext& call) { return parts_.router.GetDocument(*request, call); });
  }

  ServerUnaryReactor* GetChunks(CallbackServerContext* context, const pb::GetChunksRequest* request,
                                pb::GetChunksResponse* response) override {
    return Run(context, "GetChunks", request, response,
               [this, request](const CallContext& call) { return parts_.router.GetChunks(*request, call); });
  }

  ServerUnaryReactor* ListDocuments(CallbackServerContext* context, const pb::ListDocumentsRequest* request,
                                    pb::ListDocumentsResponse* response) override {
    return Run(context, "ListDocuments", request, response,
               [this, request](const CallContext& call) { return parts_.router.ListDocuments(*request, call); });
  }

  ServerUnaryReactor* CreateCollection(CallbackServerContext* context, const pb::CreateCollectionRequest*,
                                       pb::CreateCollectionResponse*) override {
    return Refuse(
        context,
        "collections beside the default one are not served yet: the change log has them, their indexes are lacking");
  }

  ServerUnaryReactor* ListCollections(CallbackServerContext* context, const pb::ListCollectionsRequest* request,
                                      pb::ListCollectionsResponse* response) override {
    return Run(context, "ListCollections", request, response,
               [this](const CallContext& call) -> absl::StatusOr<pb::ListCollectionsResponse> {
                 RETRO_ASSIGN_OR_RETURN(const auto collections, parts_.shards.Collections(call));
                 pb::ListCollectionsResponse list;
                 list.mutable_collections()->Assign(collections.begin(), collections.end());
                 return list;
               });
  }

  ServerUnaryReactor* DeleteCollection(CallbackServerContext* context, const pb::DeleteCollectionRequest*,
                                       pb::DeleteCollectionResponse*) override {
    return Refuse(context,
                  "collections beside the default one are not served yet, and the default one can't be deleted");
  }

  ServerUnaryReactor* Stats(CallbackServerContext* context, const pb::StatsRequest* request,
                            pb::StatsResponse* response) override {
    return Run(context, "Stats", request, response,
               [this](const CallContext& call) { return parts_.router.Stats(call); });
  }

  ServerUnaryReactor* GetInfo(CallbackServerContext* context, const pb::GetInfoRequest* request,
                              pb::GetInfoResponse* response) override {
    return Run(context, "GetInfo", request, response, [this](const CallContext& call) { return Info(call); });
  }

 private:
  // Validates, where there is something to validate, works, and hands the answer over. `work`: CallContext ->
  // StatusOr<Response>.
  template <typename Request, typename Response, typename Work>
  ServerUnaryReactor* Run(CallbackServerContext* context, const char* method, const Request* request,
                          Response* response, Work work) {
    return runner_.Run(context, method,
                       [request, response, work = std::move(work)](const CallContext& call) -> absl::Status {
                         if constexpr (requires { Validate(*request); }) RETRO_RETURN_IF_ERROR(Validate(*request));
                         RETRO_ASSIGN_OR_RETURN(*response, work(call));
                         return absl::OkStatus();
                       });
  }

  absl::StatusOr<pb::CutChunksResponse> Cut(const pb::CutChunksRequest& request) const;
  absl::StatusOr<pb::UpsertDocumentsResponse> Upsert(const pb::UpsertDocumentsRequest& request,
                                                     const CallContext& call);
  absl::StatusOr<pb::GetInfoResponse> Info(const CallContext& call) const;

  const RetrieverParts parts_;
  UnaryRunner runner_;
};

absl::StatusOr<pb::CutChunksResponse> RetrieverService::Cut(const pb::CutChunksRequest& request) const {
  RETRO_ASSIGN_OR_RETURN(const pb::CollectionSpec spec, parts_.shards.Collection(request.collection()));
  if (spec.tokenizer_fingerprint() != parts_.tokenizer.fingerprint()) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kTokenizerMismatch,
                 "the collection is cut by another tokenizer than this server's");
  }
  pb::CutChunksResponse response;
  response.set_tokenizer_fingerprint(spec.tokenizer_fingerprint());
  const std::string_view text = request.text();
  for (TextChunk& cut : CutIntoChunks(parts_.tokenizer, text, static_cast<int>(spec.chunk_size()))) {
    auto* chunk = response.add_chunks();
    chunk->set_chunk_number(static_cast<uint32_t>(response.chunks_size() - 1));
    chunk->mutable_byte_range()->set_begin(cut.begin);
    chunk->mutable_byte_range()->set_end(cut.end);
    chunk->set_text(std::string(text.substr(cut.begin, cut.end - cut.begin)));
    chunk->mutable_token_ids()->Assign(cut.tokens.begin(), cut.tokens.end());
  }
  return response;
}

absl::StatusOr<pb::UpsertDocumentsResponse> RetrieverService::Upsert(const pb::UpsertDocumentsRequest& request,
                                                                     const CallContext& call) {
  pb::UpsertDocumentsResponse response;
  shardpb::ConsistencyToken token;
  token.set_store_id(parts_.shards.store_id());
  Mutex mutex;
  CondVar reported;
  const auto writer = OrderedWriter::Create(parts_.writer, parts_.ingest_workers);
  for (int i = 0; i < request.writes_size(); ++i) {
    writer->Submit(request.collection(), request.writes(i), StrCat("writes[", i, "]"), call,
                   [&](const WriteResult& result) {
                     MutexLock lock(mutex);
                     *response.add_results() = result.document;
                     parts_.retriever_metrics.OnDocument(result.document);
                     if (result.status.ok()) Cover(token, result.shard, result.position);
                     reported.NotifyOne();
                   });
  }
  MutexLock lock(mutex);
  while (response.results_size() < request.writes_size()) reported.Wait(mutex);
  response.set_consistency_token(EncodeConsistencyToken(token));
  return response;
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

// ---------------------------------------------------------------- admin

namespace adminpb = ::retro::admin::v1;

class AdminService final : public adminpb::AdminService::CallbackService {
 public:
#define RETRO_REFUSE(Method, what)                                                            \
  ServerUnaryReactor* Method(CallbackServerContext* context, const adminpb::Method##Request*, \
                             adminpb::Method##Response*) override {                           \
    return Refuse(context, #Method ": " what);                                                \
  }
  RETRO_REFUSE(CreateSnapshot, "snapshots are not served yet; stop the service and copy its data folder")
  RETRO_REFUSE(ListSnapshots, "snapshots are not served yet")
  RETRO_REFUSE(DeleteSnapshot, "snapshots are not served yet")
  RETRO_REFUSE(RestoreSnapshot, "snapshots are not served yet; stop the service and put a copied data folder in place")
  RETRO_REFUSE(Verify, "checksums over a store's content are not served yet")
  RETRO_REFUSE(Compact, "compaction on command is not served yet; the store compacts by itself")
  RETRO_REFUSE(SetReadOnly, "read-only on command is not served yet")
  RETRO_REFUSE(TrainIndex, "quantised segments are not served yet; the index is exact and needs no training")
  RETRO_REFUSE(ListReplicas, "replicas are not served yet")
  RETRO_REFUSE(GetOperation, "no call starts an operation yet")
#undef RETRO_REFUSE
};

}  // namespace

std::unique_ptr<grpc::Service> MakeRetrieverService(const RetrieverParts& parts) {
  return std::make_unique<RetrieverService>(parts);
}
std::unique_ptr<grpc::Service> MakeAdminService() { return std::make_unique<AdminService>(); }

}  // namespace retro
