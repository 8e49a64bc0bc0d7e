#include "cli/connection.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "cli/exit_code.h"
#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"

namespace retro::cli {
namespace {

constexpr int kReconnectPauseMin_ms = 100;
constexpr int kReconnectPauseMax_ms = 2000;
constexpr int kConnectWait_ms = 10'000;  // for a service that is busy or far away to take a connection

}  // namespace

Peer RetrieverPeer(const CommonOptions& options) { return {"retriever", options.retriever}; }
Peer GeneratorPeer(const CommonOptions& options) { return {"generator", options.generator}; }

std::shared_ptr<grpc::Channel> Connect(const Peer& peer) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  arguments.SetUserAgentPrefix("retro");
  // Retries of ours must find a service that has come back; the library's own pauses grow to two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectPauseMin_ms);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectWait_ms);  // what its name hides: the least wait
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectPauseMax_ms);
  return grpc::CreateCustomChannel(peer.address, grpc::InsecureChannelCredentials(), arguments);
}

std::unique_ptr<pb::RetrieverService::Stub> ConnectRetriever(const CommonOptions& options) {
  return pb::RetrieverService::NewStub(Connect(RetrieverPeer(options)));
}

std::unique_ptr<gen::GeneratorService::Stub> ConnectGenerator(const CommonOptions& options) {
  return gen::GeneratorService::NewStub(Connect(GeneratorPeer(options)));
}

bool IsUnreachable(const grpc::Status& status) {
  // Our services say why they are unavailable; the library's own words come without a reason.
  return status.error_code() == grpc::StatusCode::UNAVAILABLE && !ReasonOf(FromGrpcStatus(status)).has_value();
}

std::string DescribeFailure(const Peer& peer, const grpc::Status& status) {
  if (IsUnreachable(status)) {
    return StrCat(peer.name, " at ", peer.address,
                  " cannot be reached: is it running? Start it with deploy/local/up.sh, or name another with --",
                  peer.name, " (", status.error_message(), ")");
  }
  const absl::Status known = FromGrpcStatus(status);
  const std::optional<Reason> reason = ReasonOf(known);
  if (!reason.has_value()) {
    switch (status.error_code()) {
      case grpc::StatusCode::CANCELLED:
        if (Interrupted()) return "interrupted";
        break;
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        return StrCat(peer.name, " at ", peer.address,
                      " did not answer in time: give it longer with --timeout, or look at its log");
      case grpc::StatusCode::UNIMPLEMENTED:
        return StrCat(peer.name, " at ", peer.address, " does not know this call: is it the ", peer.name,
                      "'s address, and of this version?");
      default:
        break;
    }
  }
  std::string line = StrCat(peer.name, ": ", status.error_message(), " (", absl::StatusCodeToString(known.code()));
  if (reason.has_value()) line += StrCat(", reason ", ReasonName(*reason));
  if (const std::optional<std::string> field = FieldOf(known)) line += StrCat(", field ", *field);
  return line + ")";
}

int ReportFailure(const Console& console, const Peer& peer, const grpc::Status& status) {
  console.Error(DescribeFailure(peer, status));
  if (Interrupted()) return kInterrupted;
  return IsUnreachable(status) ? kUnreachable : kFailed;
}

}  // namespace retro::cli
