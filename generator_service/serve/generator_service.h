// The generator as a handle: the engine, its retriever client and the three RPCs on a server of their own.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/rpc/metrics.h"
#include "common/rpc/server.h"
#include "generator_service/engine/scheduler.h"
#include "generator_service/serve/retrieval_fields.h"
#include "generator_service/serve/served_model.h"

namespace retro {

// Health names. "" and the service's own mean that the model is ready, until it fails several steps in a row or one
// does not end (see ModelHealth); this one, that the retriever answers.
inline constexpr char kGeneratorHealth[] = "retro.generator.v1.GeneratorService";
inline constexpr char kRetrievalHealth[] = "retrieval";

struct GeneratorOptions {
  ServerOptions server;
  std::string retriever = "127.0.0.1:7700";
  ClientSecurity retriever_security;
  int threads = 0;          // that compute; 0: one a core
  bool cuda_graphs = true;  // on CUDA, decoding is captured
  SchedulerLimits limits;
  int64_t neighbours_max = kNeighboursMax;       // of a chunk, that a request may ask for or give
  size_t request_bytes_max = size_t{256} << 20;  // of requests, what is found for them and Score's replies, at once
  size_t retokenised_cache_chunks_max = 65536;   // chunks of collections with another tokenizer
  std::chrono::milliseconds probe_ms{2000};      // between two looks at the retriever, and at the model's health
  std::chrono::milliseconds step_max{60'000};    // longer ones hang; a large model on a CPU is given more
};

class Generator {
 public:
  // `metrics` must outlive this. INVALID_ARGUMENT if the limits contradict the model; errors of RpcServer::Start.
  static absl::StatusOr<std::unique_ptr<Generator>> Start(const GeneratorOptions& options, ServedModel model,
                                                          Metrics& metrics);
  // As Stop().
  ~Generator();

  // Takes no new work, lets running generations end within most of options.server.drain_max, cuts the rest with what
  // they need to go on elsewhere, and returns.
  void Stop();

  int port() const;
  int health_port() const;

 private:
  struct Parts;
  explicit Generator(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace retro
