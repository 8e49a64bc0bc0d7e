// retro-retriever: settings, wiring, start and stop; nothing else.

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "common/base/error.h"
#include "common/base/heap.h"
#include "common/base/openmp.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/rpc/metrics.h"
#include "common/rpc/service_main.h"
#include "common/rpc/settings.h"
#include "retriever_service/embedder_flags.h"
#include "retriever_service/index_flags.h"
#include "retriever_service/retriever.h"

namespace retro {
namespace {

constexpr int kChunkSizeMin = 4;  // see CutIntoChunks
constexpr int kChunkSizeMax = 4096;
constexpr int kThreadsMax = 1024;
constexpr int kRequestsWaitingMax = 1 << 20;
constexpr uint64_t kStoreMemoryBytesMin = uint64_t{8} << 20;
constexpr uint64_t kRequestBytesMaxMin = uint64_t{64} << 20;  // the largest message
constexpr uint64_t kIngestBytesMaxMin = uint64_t{1} << 20;
constexpr uint64_t kBytesMax = uint64_t{1} << 40;

struct Settings {
  ServiceSettings service{.server = {.listen = "127.0.0.1:7700"}};
  std::string role = "standalone";
  EmbedderSettings embedder;
  RetrieverOptions retriever;
};

void AddBounds(CLI::App& app, Settings& settings) {
  constexpr char kBounds[] = "Bounds";
  app.add_option("--workers", settings.retriever.workers, "Calls worked on at once, and as many writes beside them")
      ->check(CLI::Range(1, kThreadsMax))
      ->capture_default_str()
      ->group(kBounds);
  app.add_option("--requests-waiting-max", settings.retriever.requests_waiting_max,
                 "Calls that may wait; more are refused at once")
      ->check(CLI::Range(0, kRequestsWaitingMax))
      ->capture_default_str()
      ->group(kBounds);
  app.add_option("--request-bytes-max", settings.retriever.request_bytes_max,
                 "Bytes of requests and replies in memory at once: of reads, and as much again of writes, streams' "
                 "documents that wait for --ingest-bytes-max among them; more are refused at once")
      ->check(CLI::Range(kRequestBytesMaxMin, kBytesMax))
      ->capture_default_str()
      ->group(kBounds);
  app.add_option("--ingest-workers", settings.retriever.ingest_workers, "Documents worked on at once")
      ->check(CLI::Range(1, kThreadsMax))
      ->capture_default_str()
      ->group(kBounds);
  app.add_option(
         "--ingest-bytes-max", settings.retriever.ingest_bytes_max,
         "Bytes of streams' documents in memory at once, and again of what documents become while they are cut, "
         "embedded and written; more waits, the former at the sender")
      ->check(CLI::Range(kIngestBytesMaxMin, kBytesMax))
      ->capture_default_str()
      ->group(kBounds);
  app.add_option("--store-memory-bytes", settings.retriever.store_memory_bytes,
                 "Memory of the store, beside its index: blocks read from disk and write buffers")
      ->check(CLI::Range(kStoreMemoryBytesMin, kBytesMax))
      ->capture_default_str()
      ->group(kBounds);
}

void AddSettings(CLI::App& app, Settings& settings) {
  AddServiceSettings(app, settings.service);
  app.add_option("--role", settings.role,
                 "standalone: router and one shard in this process; router: the shards are those of the cluster file")
      ->check(CLI::IsMember({"standalone", "router"}))
      ->capture_default_str();
  app.add_option("--data", settings.retriever.data, "Standalone: folder that holds the store; made if missing");
  app.add_option("--cluster-file", settings.retriever.cluster_file, "Router: the cluster file (docs/consistency.md)");
  AddClientSettings(app, "shards", settings.retriever.shards_security);
  app.add_option("--snapshot-dir", settings.retriever.snapshot_dir,
                 "Folder of snapshots; a router needs the one that its shards have. None if empty");
  app.add_option("--tokenizer", settings.retriever.tokenizer,
                 "SentencePiece model that cuts documents into chunks (fixed with the first start)")
      ->required();
  app.add_option("--chunk-size", settings.retriever.chunk_size, "Tokens a chunk (fixed with the first start)")
      ->check(CLI::Range(kChunkSizeMin, kChunkSizeMax))
      ->capture_default_str();
  app.add_flag("--verify-at-start,!--no-verify-at-start", settings.retriever.verify_at_start,
               "Read all of the store when starting and compare its checksums")
      ->default_str("true");
}

absl::Status Check(const Settings& settings) {
  const bool routes = settings.role == "router";
  if (routes != !settings.retriever.cluster_file.empty()) {
    return FieldError("--cluster-file", "a router needs one, and nobody else does: say --role=router with it");
  }
  if (routes != settings.retriever.data.empty()) {
    return FieldError("--data", "name the store's folder, which a router has not");
  }
  RETRO_RETURN_IF_ERROR(CheckRetrieverOptions(settings.retriever));
  return CheckEmbedder(settings.embedder);
}

absl::Status Serve(const Settings& settings) {
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<Embedder> embedder, MakeEmbedder(settings.embedder));
  Metrics metrics;
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<Retriever> retriever,
                         Retriever::Start(settings.retriever, settings.service.server, std::move(embedder), metrics));
  return ServeUntilStopped(settings.service, metrics, retriever->port(), [&retriever] { retriever->Stop(); });
}

int Main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Stores documents and finds the nearest chunks to a query (RETRO's retriever).", "retro-retriever");
  AddSettings(app, settings);
  AddEmbedderFlags(app, settings.embedder);
  AddIndexFlags(app, settings.retriever.index);
  AddBounds(app, settings);
  return RunService(
      app, "RETRO_RETRIEVER_", settings.service, argc, argv, [&settings] { return Check(settings); },
      [&settings] { return Serve(settings); });
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  retro::EnsurePassiveOpenMp(argv);
  retro::BoundHeaps();
  return retro::Main(argc, argv);
}
