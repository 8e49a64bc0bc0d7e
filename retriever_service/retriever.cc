#include "retriever_service/retriever.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "common/rpc/log.h"
#include "common/tokenizer/tokenizer.h"
#include "retriever_service/cluster/cluster_file.h"
#include "retriever_service/cluster_shards.h"
#include "retriever_service/embed/batcher.h"
#include "retriever_service/ingest/collection_spec.h"
#include "retriever_service/ingest/collections.h"
#include "retriever_service/ingest/document_writer.h"
#include "retriever_service/ingest/ingest_budget.h"
#include "retriever_service/query/embedding.h"
#include "retriever_service/query/router.h"
#include "retriever_service/query/shard_map.h"
#include "retriever_service/restoring_admin.h"
#include "retriever_service/serve/retriever_service.h"
#include "retriever_service/shard/admin.h"
#include "retriever_service/shard/admin_service.h"
#include "retriever_service/shard/local_admin.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/shard/shard_channel.h"
#include "retriever_service/shard/snapshots.h"
#include "retriever_service/shard/store_metrics.h"

namespace retro {
namespace {

constexpr size_t kIngestDocumentsMax = 4096;  // in memory, over all streams
// Never the bound that is met first, not by one key alone (see FairShare): streams' documents, and those of the Upserts
// that are worked on and of some whose callers have left.
constexpr size_t kIngestQueueMax = 4 * kIngestDocumentsMax;
constexpr int kCutters = 5;                 // threads for texts that are only cut, of which few have room at once
constexpr int kWaitingReadsDivisor = 4;     // the share of the workers that may wait for a consistency token
constexpr uint64_t kLogChangesMax = 1000;   // no replica needs them, and they hold what they freed on disk
constexpr double kSelfTestDriftMax = 0.01;  // cosine 0.995; half precision drifts by 1e-6, bfloat16 by 1e-4
constexpr char kServiceName[] = "retro.retriever.v1.RetrieverService";
constexpr char kFullCoverageName[] = "full_coverage";

// Of several shards each that waits holds a thread of the map's, too: half of those are left.
int WaitingReadsMax(int workers, const ShardMap& shards) {
  const int share = std::max(1, workers / kWaitingReadsDivisor);
  return shards.size() == 1 ? share : std::min(share, kFanOutThreadsPerShard / 2);
}

absl::StatusOr<std::unique_ptr<ShardMap>> OpenShard(const RetrieverOptions& options, size_t reply_bytes_max,
                                                    const Tokenizer& tokenizer, const EmbedderInfo& embedder,
                                                    const std::vector<float>& self_test,
                                                    std::unique_ptr<Admin>& admin) {
  LocalShardOptions shard;
  shard.store.path = options.data;
  shard.index = options.index;
  shard.store.verify_tables = options.verify_at_start;
  shard.store.memory_bytes = options.store_memory_bytes;
  shard.store.log_changes_max = kLogChangesMax;
  shard.reply_bytes_max = reply_bytes_max;
  shard.waiting_reads_max = std::max(1, options.workers / kWaitingReadsDivisor);
  shard.default_collection =
      MakeCollectionSpec("", tokenizer, static_cast<uint32_t>(options.chunk_size), embedder, self_test);
  const auto start = std::chrono::steady_clock::now();
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<LocalShard> local, LocalShard::Open(shard));
  LocalAdminOptions admin_options;
  admin_options.snapshot_dir = options.snapshot_dir;
  admin_options.open = [shard = local.get()] { return std::shared_ptr<LocalShard>(std::shared_ptr<void>(), shard); };
  admin = std::make_unique<LocalAdmin>(std::move(admin_options));
  std::vector<std::unique_ptr<Shard>> shards;
  shards.push_back(std::move(local));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  LogEvent(spdlog::level::info, "store open", {{"folder", options.data}, {"seconds", fmt::format("{:.2f}", seconds)}});
  return ShardMap::Create(std::move(shards));
}

// The same weights can give other vectors: another number format or device is close, a broken library is not.
absl::Status CheckSelfTest(const pb::CollectionSpec& spec, const std::vector<float>& self_test) {
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

absl::Status CheckSelfTests(ShardMap& shards, const std::vector<float>& self_test) {
  RETRO_ASSIGN_OR_RETURN(const auto collections, shards.Collections({}));
  for (const pb::CollectionSpec& spec : collections) RETRO_RETURN_IF_ERROR(CheckSelfTest(spec, self_test));
  return absl::OkStatus();
}

// A router has no settings of its own that a collection could differ from silently.
absl::Status CheckCollection(ShardMap& shards, const Tokenizer& tokenizer, const EmbedderInfo& embedder) {
  const auto spec = shards.Collection("");
  if (!spec.ok()) {
    spdlog::warn("no shard tells yet whether it has vectors of this embedder: {}", MessageOf(spec.status()));
    return absl::OkStatus();  // each call finds out
  }
  if (spec->embedder_fingerprint() != embedder.fingerprint ||
      spec->dimension() != static_cast<uint32_t>(embedder.dimension)) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kEmbedderMismatch,
                 StrCat("the shards hold vectors of embedder ", HexEncode(spec->embedder_fingerprint()), " with ",
                        spec->dimension(), " numbers, this router has ", HexEncode(embedder.fingerprint), " with ",
                        embedder.dimension, ": start it with theirs"));
  }
  if (spec->tokenizer_fingerprint() != tokenizer.fingerprint()) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kTokenizerMismatch,
                 StrCat("the shards hold chunks cut by tokenizer ", HexEncode(spec->tokenizer_fingerprint()),
                        ", this router has ", HexEncode(tokenizer.fingerprint()), ": start it with theirs"));
  }
  return absl::OkStatus();
}

UnaryOptions OptionsOfCalls(const RetrieverOptions& options, const ServerOptions& server) {
  return {.bytes_max = options.request_bytes_max,
          .reply_bytes_max = static_cast<size_t>(server.message_bytes_max),
          .access = server.access};
}

// Members are listed so that each is destroyed before what it uses.
class ServedRetriever final : public Retriever {
 public:
  ServedRetriever(const RetrieverOptions& options, const ServerOptions& server,
                  std::shared_ptr<const Tokenizer> tokenizer, std::unique_ptr<Embedder> embedder,
                  std::unique_ptr<ClusterShards> cluster, std::unique_ptr<ShardMap> shards,
                  std::unique_ptr<Admin> admin, pb::CollectionSpec own, Metrics& metrics)
      : tokenizer_(std::move(tokenizer)),
        batcher_(std::move(embedder)),
        embedding_(batcher_),
        cluster_(std::move(cluster)),
        shards_(std::move(shards)),
        admin_(std::move(admin)),
        router_(*shards_, embedding_, WaitingReadsMax(options.workers, *shards_)),
        work_budget_(kIngestDocumentsMax, options.ingest_bytes_max),
        writer_(*shards_, embedding_, *tokenizer_, work_budget_),
        collections_(*shards_, std::move(own)),
        budget_(kIngestDocumentsMax, options.ingest_bytes_max),
        workers_(options.workers, static_cast<size_t>(options.requests_waiting_max)),
        writers_(options.workers, static_cast<size_t>(options.requests_waiting_max)),
        cutters_(kCutters, static_cast<size_t>(options.requests_waiting_max)),
        ingest_workers_(options.ingest_workers, kIngestQueueMax),
        metrics_(metrics),
        runner_(workers_, metrics, OptionsOfCalls(options, server)),
        write_runner_(writers_, metrics, OptionsOfCalls(options, server)),
        cut_runner_(cutters_, write_runner_),
        service_(
            MakeRetrieverService({*shards_, router_, writer_, collections_, embedding_, *tokenizer_, runner_,
                                  write_runner_, cut_runner_, ingest_workers_, budget_, open_streams_, metrics,
                                  metrics_, static_cast<uint64_t>(server.message_bytes_max), cluster_ == nullptr})),
        admin_service_(MakeAdminService(*admin_, runner_)) {
    runner_.Watch("reads");
    write_runner_.Watch("writes");
    cut_runner_.Watch("cuts");
    metrics.BeforeScrape([this] {
      if (cluster_ != nullptr) cluster_->RefreshMetrics();
      metrics_.Refresh(batcher_.stats(), budget_);
    });
    if (cluster_ == nullptr) {  // else the shards' own processes tell
      metrics.BeforeScrape([this, shown = std::make_shared<StoreMetrics>(metrics, options.data),
                            snapshots = Snapshots(options.snapshot_dir)] {
        const auto stats = router_.Stats({});
        if (stats.ok()) shown->Set(stats->shards(0), snapshots.NewestUnixSeconds(shards_->store_id(), 0));
      });
    }
  }

  ~ServedRetriever() override { Stop(); }

  absl::Status Serve(const ServerOptions& options) {
    RETRO_ASSIGN_OR_RETURN(server_, RpcServer::Start(options, {service_.get(), admin_service_.get()}));
    server_->SetServing("", true);
    const auto show = [this](uint32_t answering) {
      server_->SetServing(kServiceName, answering > 0);
      server_->SetServing(kFullCoverageName, answering == shards_->size());
    };
    if (cluster_ == nullptr) {
      show(shards_->size());
    } else {
      cluster_->WatchCoverage(show);
    }
    return absl::OkStatus();
  }

  // Callers first, then what works for them; the store is closed by the destructor.
  void Stop() override {
    if (cluster_ != nullptr) cluster_->StopWatching();
    open_streams_.Drain();
    if (server_ != nullptr) server_->Stop();
    workers_.Stop();
    writers_.Stop();
    cutters_.Stop();
    ingest_workers_.Stop();
    batcher_.Stop();
  }

  int port() const override { return server_->port(); }

 private:
  const std::shared_ptr<const Tokenizer> tokenizer_;
  EmbedBatcher batcher_;
  Embedding embedding_;
  const std::unique_ptr<ClusterShards> cluster_;  // null: standalone
  const std::unique_ptr<ShardMap> shards_;
  const std::unique_ptr<Admin> admin_;
  Router router_;
  IngestBudget work_budget_;  // of documents that are worked on
  DocumentWriter writer_;
  Collections collections_;
  IngestBudget budget_;  // of streams' documents as they came
  WorkerPool workers_;
  WorkerPool writers_;
  WorkerPool cutters_;
  WorkerPool ingest_workers_;
  RetrieverMetrics metrics_;
  UnaryRunner runner_;
  UnaryRunner write_runner_;
  UnaryRunner cut_runner_;
  OpenStreams open_streams_;
  const std::unique_ptr<grpc::Service> service_;
  const std::unique_ptr<grpc::Service> admin_service_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace

absl::Status CheckRetrieverOptions(const RetrieverOptions& options) {
  if (!options.cluster_file.empty()) {
    RETRO_ASSIGN_OR_RETURN(const ClusterConfig config, ReadClusterFile(options.cluster_file));
    RETRO_RETURN_IF_ERROR(CheckShardSecurity(config, options.shards_security));
  }
  return LoadChunkingTokenizer(options.tokenizer).status();
}

absl::StatusOr<std::unique_ptr<Retriever>> Retriever::Start(const RetrieverOptions& options,
                                                            const ServerOptions& server,
                                                            std::unique_ptr<Embedder> embedder, Metrics& metrics) {
  RETRO_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadChunkingTokenizer(options.tokenizer));
  RETRO_ASSIGN_OR_RETURN(const std::vector<float> self_test, SelfTestVector(*embedder));
  LogEvent(spdlog::level::info, "fingerprints",
           {{"embedder", HexEncode(embedder->info().fingerprint)},
            {"tokenizer", HexEncode(tokenizer->fingerprint())},
            {"dimension", std::to_string(embedder->info().dimension)}});
  std::unique_ptr<ClusterShards> cluster;
  std::unique_ptr<ShardMap> shards;
  std::unique_ptr<Admin> admin;
  if (options.cluster_file.empty()) {
    RETRO_ASSIGN_OR_RETURN(
        shards, OpenShard(options, server.message_bytes_max, *tokenizer, embedder->info(), self_test, admin));
  } else {
    RETRO_ASSIGN_OR_RETURN(cluster, ClusterShards::Start(options.cluster_file, options.shards_security, metrics));
    shards = cluster->MakeMap();
    admin = cluster->MakeAdmin();
    RETRO_RETURN_IF_ERROR(CheckCollection(*shards, *tokenizer, embedder->info()));
  }
  admin = MakeRestoringAdmin(std::move(admin), *shards, options.snapshot_dir);
  if (cluster == nullptr) RETRO_RETURN_IF_ERROR(CheckSelfTests(*shards, self_test));
  pb::CollectionSpec own = MakeCollectionSpec("", *tokenizer, /*chunk_size=*/0, embedder->info(), self_test);
  auto retriever =
      std::make_unique<ServedRetriever>(options, server, std::move(tokenizer), std::move(embedder), std::move(cluster),
                                        std::move(shards), std::move(admin), std::move(own), metrics);
  ServerOptions serving = server;
  serving.admitted_bytes_max = 2 * options.request_bytes_max + options.ingest_bytes_max;
  RETRO_RETURN_IF_ERROR(retriever->Serve(serving));
  return std::unique_ptr<Retriever>(std::move(retriever));
}

}  // namespace retro
