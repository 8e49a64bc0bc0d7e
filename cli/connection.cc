#include "cli/connection.h"

#include "cli/exit_code.h"
#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"

namespace retro::cli {

Peer RetrieverPeer(const CommonOptions& options) { return {"retriever", options.retriever, options.retriever_channel}; }
Peer GeneratorPeer(const CommonOptions& options) { return {"generator", options.generator, options.generator_channel}; }

std::unique_ptr<pb::RetrieverService::Stub> ConnectRetriever(const CommonOptions& options) {
  return pb::RetrieverService::NewStub(options.retriever_channel);
}

std::unique_ptr<gen::GeneratorService::Stub> ConnectGenerator(const CommonOptions& options) {
  return gen::GeneratorService::NewStub(options.generator_channel);
}

bool IsUnreachable(const grpc::Status& status) {
  // Our services say why they are unavailable; the library's own words come without a reason.
  return status.error_code() == grpc::StatusCode::UNAVAILABLE && !ReasonOf(FromGrpcStatus(status)).has_value();
}

std::string DescribeFailure(const Peer& peer, const grpc::Status& status) {
  if (IsUnreachable(status)) {
    return StrCat(peer.name, " at ", peer.address,
                  " cannot be reached: is it running? Start it with deploy/local/up.sh, or name another with --",
                  peer.name, "; one that speaks TLS needs --tls-ca (", status.error_message(), ")");
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
