// retro-shard: one replica of a shard, its store and index behind gRPC; settings, wiring, start and stop, nothing else.
// Carries no embedder and no torch.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/base/error.h"
#include "common/base/heap.h"
#include "common/base/openmp.h"
#include "common/base/repeating.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/base/worker_pool.h"
#include "common/rpc/metrics.h"
#include "common/rpc/server.h"
#include "common/rpc/service_main.h"
#include "common/rpc/settings.h"
#include "common/rpc/unary.h"
#include "retriever_service/index_flags.h"
#include "retriever_service/replica/replica.h"
#include "retriever_service/replica/replica_admin.h"
#include "retriever_service/shard/admin_service.h"
#include "retriever_service/shard/shard_service.h"
#include "retriever_service/shard/snapshots.h"
#include "retriever_service/shard/store_metrics.h"

namespace retro {
namespace {

constexpr char kServiceName[] = "retro.shard.v1.ShardService";
constexpr size_t kFingerprintHexDigits = 64;
constexpr int kChunkSizeMin = 4;  // see CutIntoChunks
constexpr int kChunkSizeMax = 4096;
constexpr int kThreadsMax = 1024;
constexpr int kAdminWorkers = 2;  // of their own: a checksum of everything takes long
constexpr size_t kAdminWaitingMax = 16;
constexpr int kWaitingReadsDivisor = 4;  // the share of the workers that may wait for a consistency token
constexpr int kRequestsWaitingMax = 1 << 20;
constexpr uint64_t kLogChangesMost = uint64_t{1} << 40;
constexpr uint64_t kStoreMemoryBytesMin = uint64_t{8} << 20;
constexpr uint64_t kRequestBytesMaxMin = uint64_t{64} << 20;  // the largest message
constexpr uint64_t kBytesMax = uint64_t{1} << 40;
constexpr std::chrono::milliseconds kReadinessEvery{100};

struct Settings {
  ServiceSettings service{.server = {.listen = "127.0.0.1:7710"}};
  StoreOptions store;
  uint32_t shard = 0;
  IndexSettings index;
  std::string cluster_file;
  std::string replica;
  std::string snapshot_dir;
  ClientSecurity replicas_security;
  std::chrono::milliseconds late_after = ReplicaOptions().late_after;
  std::string embedder_fingerprint;
  std::string tokenizer_fingerprint;
  uint32_t dimension = 0;
  uint32_t chunk_size = 64;
  int workers = 16;
  size_t requests_waiting_max = 1024;
  UnaryOptions unary;
};

void AddSettings(CLI::App& app, Settings& settings) {
  AddServiceSettings(app, settings.service);
  app.add_option("--data", settings.store.path, "Folder that holds the store; made if missing")->required();
  app.add_flag("--verify-at-start,!--no-verify-at-start", settings.store.verify_tables,
               "Read all of the store when starting and compare its checksums")
      ->default_str("true");
  app.add_option("--cluster-file", settings.cluster_file,
                 "The cluster file (docs/consistency.md), on storage that all processes of the cluster share")
      ->required();
  app.add_option("--shard", settings.shard, "The shard's number in the cluster file, from 0")->required();
  app.add_option("--replica", settings.replica, "This process's name in the cluster file")->required();
  app.add_option("--snapshot-dir", settings.snapshot_dir, "Folder of snapshots; default none");
  app.add_option(
         "--late-ms", settings.late_after,
         "As the primary: a replica that holds up a write so long is no longer waited for until it has caught up")
      ->check(CLI::Range(int64_t{1}, int64_t{3'600'000}))
      ->default_str(std::to_string(settings.late_after.count()));

  constexpr char kCollection[] = "Default collection (fixed with the first start; retro-retriever's log shows them)";
  app.add_option("--embedder-fingerprint", settings.embedder_fingerprint, "64 hexadecimal digits")->group(kCollection);
  app.add_option("--tokenizer-fingerprint", settings.tokenizer_fingerprint, "64 hexadecimal digits")
      ->group(kCollection);
  app.add_option("--dimension", settings.dimension, "Numbers a vector")->group(kCollection);
  app.add_option("--chunk-size", settings.chunk_size, "Tokens a chunk")
      ->check(CLI::Range(kChunkSizeMin, kChunkSizeMax))
      ->capture_default_str()
      ->group(kCollection);

  AddClientSettings(app, "replicas", settings.replicas_security);
  AddIndexFlags(app, settings.index);

  constexpr char kBounds[] = "Bounds";
  app.add_option("--workers", settings.workers, "Calls worked on at once, beside 16 writes")
      ->check(CLI::Range(1, kThreadsMax))
      ->capture_default_str()
      ->group(kBounds);
  app.add_option("--requests-waiting-max", settings.requests_waiting_max,
                 "Calls that may wait; more are refused at once")
      ->check(CLI::Range(1, kRequestsWaitingMax))
      ->capture_default_str()
      ->group(kBounds);
  app.add_option(
         "--request-bytes-max", settings.unary.bytes_max,
         "Bytes of requests and replies in memory at once: of reads, as much again of writes and of admin calls, "
         "but for what replicas pull; more are refused at once")
      ->check(CLI::Range(kRequestBytesMaxMin, kBytesMax))
      ->capture_default_str()
      ->group(kBounds);
  app.add_option("--store-memory-bytes", settings.store.memory_bytes,
                 "Memory of the store, beside its index: blocks read from disk and write buffers")
      ->check(CLI::Range(kStoreMemoryBytesMin, kBytesMax))
      ->capture_default_str()
      ->group(kBounds);
  app.add_option("--log-changes-max", settings.store.log_changes_max,
                 "Changes that the log keeps for replicas that are behind; what they deleted keeps its disk space")
      ->capture_default_str()
      ->check(CLI::Range(uint64_t{1}, kLogChangesMost))
      ->group(kBounds);
}

absl::StatusOr<std::string> ParseFingerprint(const std::string& flag, const std::string& text) {
  const bool is_hex = text.size() == kFingerprintHexDigits &&
                      std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
  if (!is_hex) return FieldError(flag, "give 64 hexadecimal digits");
  return absl::HexStringToBytes(text);
}

// None if nothing of it is given: then the store must have one.
absl::StatusOr<std::optional<pb::CollectionSpec>> DefaultCollection(const Settings& settings) {
  if (settings.embedder_fingerprint.empty() && settings.tokenizer_fingerprint.empty() && settings.dimension == 0) {
    return std::nullopt;
  }
  pb::CollectionSpec spec;
  RETRO_ASSIGN_OR_RETURN(*spec.mutable_embedder_fingerprint(),
                         ParseFingerprint("--embedder-fingerprint", settings.embedder_fingerprint));
  RETRO_ASSIGN_OR_RETURN(*spec.mutable_tokenizer_fingerprint(),
                         ParseFingerprint("--tokenizer-fingerprint", settings.tokenizer_fingerprint));
  if (settings.dimension == 0) return FieldError("--dimension", "give the numbers a vector");
  spec.set_dimension(settings.dimension);
  spec.set_chunk_size(settings.chunk_size);
  spec.set_metric(pb::METRIC_L2);
  return spec;
}

absl::StatusOr<ReplicaOptions> OptionsOf(const Settings& settings) {
  ReplicaOptions options;
  options.shard = settings.shard;
  options.name = settings.replica;
  options.late_after = settings.late_after;
  options.security = settings.replicas_security;
  options.local.store = settings.store;
  options.local.index = settings.index;
  options.local.reply_bytes_max = settings.unary.reply_bytes_max;
  options.local.waiting_reads_max = std::max(1, settings.workers / kWaitingReadsDivisor);
  RETRO_ASSIGN_OR_RETURN(options.local.default_collection, DefaultCollection(settings));
  return options;
}

absl::Status Check(const Settings& settings) {
  RETRO_ASSIGN_OR_RETURN(const ClusterConfig config, ReadClusterFile(settings.cluster_file));
  RETRO_ASSIGN_OR_RETURN(const ReplicaOptions options, OptionsOf(settings));
  return CheckReplica(options, config, settings.cluster_file);
}

// Of this replica itself, whether it answers reads or not.
void WatchReplica(ReplicaShard& shard, const Settings& settings, Metrics& metrics) {
  metrics.BeforeScrape([&shard, shown = std::make_shared<StoreMetrics>(metrics, settings.store.path),
                        snapshots = Snapshots(settings.snapshot_dir), &metrics] {
    metrics
        .Gauge("retro_shard_primary", "1 while this replica is its shard's primary.",
               {{"shard", std::to_string(shard.number())}})
        .Set(shard.in_sync().epoch() != 0 ? 1 : 0);
    const auto local = shard.local();
    if (!local.ok()) {  // it is taking a copy
      shown->SetNone(shard.number());
      return;
    }
    const auto stats = (*local)->Stats({}, {});
    const StoreIdentity& own = (*local)->store().identity();
    if (stats.ok()) shown->Set(stats->stats(), snapshots.NewestUnixSeconds(own.store_id, own.shard));
  });
}

absl::Status Serve(const Settings& settings) {
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<ClusterWatch> watch, ClusterWatch::Start(settings.cluster_file));
  RETRO_ASSIGN_OR_RETURN(const ReplicaOptions options, OptionsOf(settings));
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<Replica> replica, Replica::Start(options, *watch));
  Metrics metrics;
  WorkerPool workers(settings.workers, settings.requests_waiting_max);
  WorkerPool admin_workers(kAdminWorkers, kAdminWaitingMax);
  UnaryOptions unary = settings.unary;
  unary.access = settings.service.server.access;
  UnaryRunner admin_runner(admin_workers, metrics, unary);
  const std::unique_ptr<Admin> admin = MakeReplicaAdmin(*replica, settings.snapshot_dir);
  const std::unique_ptr<grpc::Service> admin_service = MakeAdminService(*admin, admin_runner);
  const std::unique_ptr<grpc::Service> service =
      MakeShardService(replica->shard(), workers, metrics, unary, replica.get());
  ServerOptions serving = settings.service.server;
  serving.admitted_bytes_max = 3 * unary.bytes_max;  // of reads, of writes and of admin calls
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<RpcServer> server,
                         RpcServer::Start(serving, {service.get(), admin_service.get()}));
  // Whoever restarts replicas one after the other waits for this: not before it can take its part again.
  std::optional<Repeating> readiness(std::in_place, kReadinessEvery, [&server, &shard = replica->shard()] {
    server->SetServing(kServiceName, shard.readable());
  });
  WatchReplica(replica->shard(), settings, metrics);
  return ServeUntilStopped(settings.service, metrics, server->port(), [&] {
    readiness.reset();
    replica->shard().in_sync().Close();
    server->Stop();
    workers.Stop();
    admin_workers.Stop();
  });
}

int Main(int argc, char** argv) {
  Settings settings;
  CLI::App app("One replica of a shard of a store: keeps documents and finds the nearest chunks to a vector.",
               "retro-shard");
  AddSettings(app, settings);
  return RunService(
      app, "RETRO_SHARD_", settings.service, argc, argv, [&settings] { return Check(settings); },
      [&settings] { return Serve(settings); });
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  retro::EnsurePassiveOpenMp(argv);
  retro::BoundHeaps();
  return retro::Main(argc, argv);
}
