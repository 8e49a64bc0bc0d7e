#include "common/rpc/server.h"

#include <arpa/inet.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_builder.h>

#include <csignal>
#include <mutex>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/rpc/log.h"

namespace retro {
namespace {

// Bounds that a hostile client meets before any of our code runs.
constexpr int kMetadataBytesMax = 16 << 10;
constexpr int kPingStrikesMax = 2;
constexpr int kPingIntervalMsMin = 20'000;  // pings that come faster are strikes
constexpr int kKeepaliveMs = 60'000;        // a connection that is silent for so long is asked whether it is alive
constexpr int kKeepaliveTimeoutMs = 20'000;
constexpr int kHandshakeMsMax = 20'000;
constexpr size_t kProbesBytesMax = size_t{16} << 20;

// `bytes_max`: of messages in gRPC's buffers, which take those that are not whole yet whatever they are said to become.
void SetBounds(const ServerOptions& options, size_t bytes_max, grpc::ServerBuilder& builder) {
  grpc::ResourceQuota quota;
  quota.Resize(bytes_max);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(options.message_bytes_max);
  builder.SetMaxSendMessageSize(options.message_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytesMax);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.streams_per_connection_max);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, kPingStrikesMax);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kPingIntervalMsMin);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMsMax);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, static_cast<int>(options.connection_age_max.count()));
  // Else a second process on the same port would share its connections with the first instead of failing.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

// The reflection library adds itself to every server of a process that is linked with it.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; });
  }
};

// gRPC's own log goes where ours goes. What it calls errors are often just clients that left, and what matters reaches
// us as a status; but that it gets no thread, and so may answer nobody, it tells no one else.
void LogFromGrpc(gpr_log_func_args* args) {
  const bool lacks_a_thread = std::string_view(args->message).find("pthread_create failed") != std::string_view::npos;
  const bool is_error = args->severity == GPR_LOG_SEVERITY_ERROR;
  LogEvent(lacks_a_thread ? spdlog::level::err
           : is_error     ? spdlog::level::debug
                          : spdlog::level::trace,
           "grpc", {{"message", args->message}});
}

absl::Status PortError(const std::string& listen, const char* flag) {
  return absl::UnavailableError(StrCat("cannot listen on ", listen,
                                       ": is the port in use, or the address not this machine's? Choose another with ",
                                       flag));
}

}  // namespace

bool IsLoopback(const std::string& address) {
  std::string_view rest = address;
  for (const std::string_view scheme : {"dns:///", "dns:", "ipv4:", "ipv6:"}) {
    if (!rest.starts_with(scheme)) continue;
    rest.remove_prefix(scheme.size());
    break;
  }
  in_addr ipv4 = {};
  const std::string host(rest.substr(0, rest.rfind(':')));
  const bool is_ipv4 = inet_pton(AF_INET, host.c_str(), &ipv4) == 1;  // not a name that only begins with 127.
  return (is_ipv4 && ntohl(ipv4.s_addr) >> 24 == IN_LOOPBACKNET) || host == "localhost" || host == "[::1]" ||
         rest.starts_with("unix:");
}

absl::Status CheckListenAddress(const ServerOptions& options) {
  if (options.tls.enabled() || options.allow_plaintext_beyond_loopback || IsLoopback(options.listen)) {
    return absl::OkStatus();
  }
  return FieldError("--listen",
                    StrCat(options.listen,
                           " is not a loopback address and this port is plaintext: anyone who reaches it could read "
                           "and change the store. Give --tls-certificate and --tls-key, or if plaintext is meant, say "
                           "--allow-plaintext-beyond-loopback"));
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const ServerOptions& options,
                                                            const std::vector<grpc::Service*>& services) {
  RETRO_RETURN_IF_ERROR(CheckListenAddress(options));
  RETRO_RETURN_IF_ERROR(CheckServerTls(options.tls));
  static std::once_flag process_once;
  std::call_once(process_once, [] {
    gpr_set_log_function(LogFromGrpc);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });

  std::unique_ptr<RpcServer> server(new RpcServer);
  server->options_ = options;
  if (!options.health_listen.empty()) {
    grpc::ServerBuilder builder;
    SetBounds(options, kProbesBytesMax, builder);
    builder.SetOption(std::make_unique<WithoutReflection>());
    builder.RegisterService(&server->probed_health_);
    builder.AddListeningPort(options.health_listen, grpc::InsecureServerCredentials(), &server->health_port_);
    server->health_server_ = builder.BuildAndStart();
    if (server->health_server_ == nullptr || server->health_port_ == 0)
      return PortError(options.health_listen, "--health-listen");
  }
  grpc::ServerBuilder builder;
  SetBounds(options, options.admitted_bytes_max + kArrivingBytesMax, builder);
  if (!options.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  RETRO_ASSIGN_OR_RETURN(const auto credentials, MakeServerCredentials(options.tls));
  builder.AddListeningPort(options.listen, credentials, &server->port_);
  builder.RegisterService(&server->health_);
  for (grpc::Service* service : services) builder.RegisterService(service);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || server->port_ == 0) return PortError(options.listen, "--listen");
  return server;
}

RpcServer::~RpcServer() { Stop(); }

void RpcServer::SetServing(const std::string& name, bool serving) {
  for (Health* health : {&health_, &probed_health_}) health->Set(name, serving);
}

void RpcServer::Stop() {
  for (Health* health : {&health_, &probed_health_}) health->Stop();
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now() + options_.drain_max);
  if (health_server_ != nullptr) health_server_->Shutdown(std::chrono::system_clock::now());  // nothing there lasts
  server_.reset();
  health_server_.reset();
}

void BlockStopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

int WaitForStopSignal() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  int signal = 0;
  sigwait(&set, &signal);
  return signal;
}

}  // namespace retro
