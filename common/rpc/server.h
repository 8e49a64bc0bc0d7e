// A gRPC server as a handle: started with options, drained, stopped.
#pragma once

#include <grpcpp/server.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/rpc/access.h"
#include "common/rpc/credentials.h"
#include "common/rpc/health.h"

namespace retro {

struct ServerOptions {
  std::string listen = "127.0.0.1:0";            // host:port; port 0 picks one
  bool allow_plaintext_beyond_loopback = false;  // else only loopback addresses are taken without TLS
  ServerTls tls;
  std::shared_ptr<AccessControl> access;  // for the services' own use; null: no API keys
  std::string health_listen;              // "" for none; a second port with the health service alone, for probes
  bool reflection = true;                 // gRPC server reflection
  int message_bytes_max = 64 << 20;       // of one message received
  // Of requests in memory by the services' own bounds. gRPC may hold kArrivingBytesMax beside them, of messages that
  // are not whole yet, which come before any key is looked at; beyond it it cancels calls, whoever's they are.
  size_t admitted_bytes_max = size_t{512} << 20;
  int streams_per_connection_max = 256;  // calls at once on one connection; more wait at the client
  // A connection is closed at this age, once its calls have ended: clients see new addresses and new certificates.
  std::chrono::milliseconds connection_age_max{30 * 60 * 1000};
  std::chrono::milliseconds drain_max{10'000};  // Stop() cuts calls that last longer
};

inline constexpr size_t kArrivingBytesMax = size_t{256} << 20;

class RpcServer {
 public:
  // `services` must outlive the server. UNAVAILABLE if a port is in use, INVALID_ARGUMENT for an address that is
  // refused.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const ServerOptions& options,
                                                          const std::vector<grpc::Service*>& services);
  // As Stop().
  ~RpcServer();

  // What grpc.health.v1 says of `name` ("" is the whole server; that is also liveness). Any thread.
  void SetServing(const std::string& name, bool serving);

  // Health says NOT_SERVING and ends who watches it, no new call is taken, running ones may end within drain_max and
  // are cancelled after it.
  void Stop();

  int port() const { return port_; }
  int health_port() const { return health_port_; }

 private:
  RpcServer() = default;

  ServerOptions options_;
  Health health_, probed_health_;  // of each port, the same
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::Server> health_server_;
  int port_ = 0;
  int health_port_ = 0;
};

// True if every address that `address` (host:port, or a target of gRPC) names is a loopback one.
bool IsLoopback(const std::string& address);

// INVALID_ARGUMENT for an address that is refused without TLS.
absl::Status CheckListenAddress(const ServerOptions& options);

// Stop signals (SIGTERM, SIGINT) are taken by WaitForStopSignal() alone: call Block before any thread is started.
void BlockStopSignals();
// Returns the signal's number.
int WaitForStopSignal();

}  // namespace retro
