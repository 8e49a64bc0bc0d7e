#include "common/rpc/server.h"

#include <arpa/inet.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include <csignal>
#include <mutex>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/log.h"

namespace retro {
namespace {

// Bounds that a hostile client meets before any of our code runs.
constexpr int kMetadataBytesMax = 16 << 10;
constexpr int kStreamsPerConnectionMax = 1024;
constexpr int kPingStrikesMax = 2;

void SetBounds(const ServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(options.message_bytes_max);
  builder.SetMaxSendMessageSize(options.message_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytesMax);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnectionMax);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, kPingStrikesMax);
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
// us as a status.
void LogFromGrpc(gpr_log_func_args* args) {
  LogEvent(args->severity == GPR_LOG_SEVERITY_ERROR ? spdlog::level::debug : spdlog::level::trace, "grpc",
           {{"message", args->message}});
}

absl::Status PortError(const std::string& listen, const char* flag) {
  return absl::UnavailableError(StrCat("cannot listen on ", listen,
                                       ": is the port in use, or the address not this machine's? Choose another with ",
                                       flag));
}

}  // namespace

bool IsLoopback(const std::string& listen) {
  in_addr address = {};
  const std::string host = listen.substr(0, listen.rfind(':'));
  const bool is_ipv4 = inet_pton(AF_INET, host.c_str(), &address) == 1;  // not a name that only begins with 127.
  return (is_ipv4 && ntohl(address.s_addr) >> 24 == IN_LOOPBACKNET) || listen.starts_with("localhost:") ||
         listen.starts_with("[::1]:") || listen.starts_with("unix:");
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const ServerOptions& options,
                                                            const std::vector<grpc::Service*>& services) {
  if (!IsLoopback(options.listen) && !options.allow_plaintext_beyond_loopback) {
    return FieldError(
        "--listen",
        StrCat(options.listen,
               " is not a loopback address and this port is plaintext: anyone who reaches it could read and "
               "change the store. If that is meant, say --allow-plaintext-beyond-loopback"));
  }
  static std::once_flag process_once;
  std::call_once(process_once, [] {
    gpr_set_log_function(LogFromGrpc);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::EnableDefaultHealthCheckService(true);
  });

  std::unique_ptr<RpcServer> server(new RpcServer);
  server->options_ = options;
  if (!options.health_listen.empty()) {
    grpc::ServerBuilder builder;
    SetBounds(options, builder);
    builder.SetOption(std::make_unique<WithoutReflection>());
    builder.RegisterCallbackGenericService(&server->refusing_service_);  // a server needs a service besides health
    builder.AddListeningPort(options.health_listen, grpc::InsecureServerCredentials(), &server->health_port_);
    server->health_server_ = builder.BuildAndStart();
    if (server->health_server_ == nullptr || server->health_port_ == 0)
      return PortError(options.health_listen, "--health-listen");
  }
  grpc::ServerBuilder builder;
  SetBounds(options, builder);
  if (!options.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(), &server->port_);
  for (grpc::Service* service : services) builder.RegisterService(service);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || server->port_ == 0) return PortError(options.listen, "--listen");
  return server;
}

RpcServer::~RpcServer() { Stop(); }

void RpcServer::SetServing(const std::string& name, bool serving) {
  for (const auto& server : {server_.get(), health_server_.get()}) {
    if (server != nullptr) server->GetHealthCheckService()->SetServingStatus(name, serving);
  }
}

void RpcServer::Stop() {
  for (const auto& server : {server_.get(), health_server_.get()}) {
    if (server != nullptr) server->GetHealthCheckService()->Shutdown();
  }
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now() + options_.drain_max);
  if (health_server_ != nullptr) health_server_->Shutdown();
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
