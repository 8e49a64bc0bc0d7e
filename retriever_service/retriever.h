// The retriever as one thing: embedder, router, RPC server and, standalone, store and shard, wired together. What
// main() runs and tests start in their own process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/rpc/credentials.h"
#include "common/rpc/metrics.h"
#include "common/rpc/server.h"
#include "common/rpc/unary.h"
#include "retriever_service/embed/embedder.h"
#include "retriever_service/index/index_settings.h"

namespace retro {

struct RetrieverOptions {
  std::string data;                // folder of the store; made if missing
  std::string cluster_file;        // in its place: the shards are other processes, and this one is a router
  ClientSecurity shards_security;  // of calls to the cluster's shards
  std::string snapshot_dir;        // "" for no snapshots
  std::string tokenizer;           // SentencePiece model that cuts documents; fixed with the first start
  int chunk_size = 64;             // tokens; fixed with the first start
  IndexSettings index;
  int workers = 16;  // unary calls at once
  int requests_waiting_max = 1024;
  int ingest_workers = 16;                          // documents at once
  uint64_t ingest_bytes_max = uint64_t{256} << 20;  // documents in memory, over all streams
  size_t request_bytes_max =
      UnaryOptions().bytes_max;                  // of requests and replies in memory: of reads, and again of writes
  bool verify_at_start = true;                   // read the store's tables and compare checksums
  size_t store_memory_bytes = size_t{96} << 20;  // see KeyValueOptions
};

// An error if these contradict themselves, or name a cluster file, certificates or a tokenizer that cannot be used.
absl::Status CheckRetrieverOptions(const RetrieverOptions& options);

class Retriever {
 public:
  // Opens the store and builds its index, or goes to the cluster's shards, and serves. Everything that can be wrong
  // with folder, tokenizer, embedder and port is a status here. `metrics` must outlive the result.
  static absl::StatusOr<std::unique_ptr<Retriever>> Start(const RetrieverOptions& options, const ServerOptions& server,
                                                          std::unique_ptr<Embedder> embedder, Metrics& metrics);
  // As Stop().
  virtual ~Retriever() = default;

  // Takes no more calls, ends those that run, closes the store.
  virtual void Stop() = 0;
  virtual int port() const = 0;
};

}  // namespace retro
