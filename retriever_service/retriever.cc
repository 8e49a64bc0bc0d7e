#include "retriever_service/retriever.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "common/rpc/log.h"
#include "common/tokenizer/tokenizer.h"
#include "retriever_service/embed/batcher.h"
#include "retriever_service/ingest/document_writer.h"
#include "retriever_service/ingest/ingest_budget.h"
#include "retriever_service/query/embedding.h"
#include "retriever_service/query/router.h"
#include "retriever_service/query/shard_map.h"
#include "retriever_service/serve/retriever_service.h"
#include "retriever_service/shard/local_shard.h"

namespace retro {
namespace {

constexpr size_t kIngestDocumentsMax = 4096;                 // in memory, over all streams
constexpr size_t kIngestQueueMax = 2 * kIngestDocumentsMax;  // never the bound that is met first
constexpr int kWaitingReadsDivisor = 4;     // the share of the workers that may wait for a consistency token
constexpr double kSelfTestDriftMax = 0.01;  // cosine 0.995; half precision drifts by 1e-6, bfloat16 by 1e-4
constexpr char kServiceName[] = "retro.retriever.v1.RetrieverService";
constexpr char kFullCoverageName[] = "full_coverage";

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadChunkingTokenizer(const RetrieverOptions& options) {
  RETRO_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadTokenizer(options.tokenizer));
  if (!tokenizer->lossless()) {
    return FieldError("--tokenizer",
                      StrCat(options.tokenizer,
                             " does not give back every text byte for byte, so it can't cut documents; use "
                             "common/tokenizer/retro-16k.model or one trained like it"));
  }
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<ShardMap>> OpenShard(const RetrieverOptions& options, size_t reply_bytes_max,
                                                    const Tokenizer& tokenizer, const EmbedderInfo& embedder,
                                                    const std::vector<float>& self_test) {
  LocalShardOptions shard;
  shard.store.path = options.data;
  shard.index = options.index;
  shard.store.verify_tables = options.verify_at_start;
  shard.store.memory_bytes = options.store_memory_bytes;
  shard.reply_bytes_max = reply_bytes_max;
  shard.waiting_reads_max = std::max(1, options.workers / kWaitingReadsDivisor);
  pb::CollectionSpec& spec = shard.default_collection.emplace();
  spec.set_tokenizer_fingerprint(tokenizer.fingerprint());
  spec.set_chunk_size(static_cast<uint32_t>(options.chunk_size));
  spec.set_embedder_fingerprint(embedder.fingerprint);
  spec.set_dimension(static_cast<uint32_t>(embedder.dimension));
  spec.set_metric(pb::METRIC_L2);
  spec.set_self_test_vector(ToHalf(self_test));
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::unique_ptr<Shard>> shards;
  RETRO_ASSIGN_OR_RETURN(shards.emplace_back(), LocalShard::Open(shard));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  LogEvent(spdlog::level::info, "store open", {{"folder", options.data}, {"seconds", fmt::format("{:.2f}", seconds)}});
  return ShardMap::Create(std::move(shards));
}

// The same weights can give other vectors: another number format or device is close, a broken library is not.
absl::Status CheckSelfTest(ShardMap& shards, const std::vector<float>& self_test) {
  RETRO_ASSIGN_OR_RETURN(const pb::CollectionSpec spec, shards.Collection(""));
  std::vector<float> stored(spec.dimension());
  if (spec.self_test_vector().size() != stored.size() * kHalfBytes || stored.size() != self_test.size()) {
    return absl::OkStatus();  // made by a shard alone, which has no embedder
  }
  FromHalf(spec.self_test_vector(), stored);
  double distance = 0, scale = 0;
  for (size_t i = 0; i < stored.size(); ++i) {
    distance += (stored[i] - self_test[i]) * (stored[i] - self_test[i]);
    scale += stored[i] * stored[i];
  }
  if (distance <= kSelfTestDriftMax * scale) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kEmbedderMismatch,
               StrCat("this embedder gives other vectors than the one that filled the store, though its files are the "
                      "same (relative "
                      "squared distance ",
                      distance / scale, " on the self-test): try another --dtype or --device, or check the libraries"));
}

// Members are listed so that each is destroyed before what it uses.
class StandaloneRetriever final : public Retriever {
 public:
  StandaloneRetriever(const RetrieverOptions& options, const ServerOptions& server,
                      std::shared_ptr<const Tokenizer> tokenizer, std::unique_ptr<Embedder> embedder,
                      std::unique_ptr<ShardMap> shards, Metrics& metrics)
      : tokenizer_(std::move(tokenizer)),
        batcher_(std::move(embedder)),
        embedding_(batcher_),
        shards_(std::move(shards)),
        router_(*shards_, embedding_),
        writer_(*shards_, embedding_, *tokenizer_),
        budget_(kIngestDocumentsMax, options.ingest_bytes_max),
        workers_(options.workers, static_cast<size_t>(options.requests_waiting_max)),
        ingest_workers_(options.ingest_workers, kIngestQueueMax),
        metrics_(metrics),
        runner_(workers_, metrics,
                {.bytes_max = options.request_bytes_max,
                 .reply_bytes_max = static_cast<size_t>(server.message_bytes_max),
                 .access = server.access}),
        service_(MakeRetrieverService({*shards_, router_, writer_, embedding_, *tokenizer_, runner_, ingest_workers_,
                                       budget_, open_streams_, metrics, metrics_,
                                       static_cast<uint64_t>(server.message_bytes_max)})),
        admin_(MakeAdminService(runner_)) {
    metrics.BeforeScrape([this] {
      const auto stats = router_.Stats({});
      if (stats.ok()) metrics_.Refresh(batcher_.stats(), budget_, *stats);
    });
  }

  ~StandaloneRetriever() override { Stop(); }

  absl::Status Serve(const ServerOptions& options) {
    RETRO_ASSIGN_OR_RETURN(server_, RpcServer::Start(options, {service_.get(), admin_.get()}));
    for (const char* name : {"", kServiceName, kFullCoverageName}) server_->SetServing(name, true);
    return absl::OkStatus();
  }

  // Callers first, then what works for them; the store is closed by the destructor.
  void Stop() override {
    open_streams_.Drain();
    if (server_ != nullptr) server_->Stop();
    workers_.Stop();
    ingest_workers_.Stop();
    batcher_.Stop();
  }

  int port() const override { return server_->port(); }

 private:
  const std::shared_ptr<const Tokenizer> tokenizer_;
  EmbedBatcher batcher_;
  Embedding embedding_;
  const std::unique_ptr<ShardMap> shards_;
  Router router_;
  DocumentWriter writer_;
  IngestBudget budget_;
  WorkerPool workers_;
  WorkerPool ingest_workers_;
  RetrieverMetrics metrics_;
  UnaryRunner runner_;
  OpenStreams open_streams_;
  const std::unique_ptr<grpc::Service> service_;
  const std::unique_ptr<grpc::Service> admin_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Retriever>> Retriever::Start(const RetrieverOptions& options,
                                                            const ServerOptions& server,
                                                            std::unique_ptr<Embedder> embedder, Metrics& metrics) {
  RETRO_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadChunkingTokenizer(options));
  RETRO_ASSIGN_OR_RETURN(const std::vector<float> self_test, SelfTestVector(*embedder));
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<ShardMap> shards,
                         OpenShard(options, server.message_bytes_max, *tokenizer, embedder->info(), self_test));
  RETRO_RETURN_IF_ERROR(CheckSelfTest(*shards, self_test));
  auto retriever = std::make_unique<StandaloneRetriever>(options, server, std::move(tokenizer), std::move(embedder),
                                                         std::move(shards), metrics);
  RETRO_RETURN_IF_ERROR(retriever->Serve(server));
  return std::unique_ptr<Retriever>(std::move(retriever));
}

}  // namespace retro
