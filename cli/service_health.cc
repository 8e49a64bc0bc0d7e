#include "cli/service_health.h"

#include "grpc/health/v1/health.grpc.pb.h"

namespace retro::cli {

using ::grpc::health::v1::Health;
using ::grpc::health::v1::HealthCheckRequest;
using ::grpc::health::v1::HealthCheckResponse;

const std::vector<HealthName>& HealthNamesOf(const Peer& peer) {
  static const auto& retriever = *new std::vector<HealthName>{
      {"", "is alive"},
      {"retro.retriever.v1.RetrieverService", "embeds, and a shard answers"},
      {"full_coverage", "all shards answer"},
  };
  static const auto& generator = *new std::vector<HealthName>{
      {"", "is alive"},
      {"retro.generator.v1.GeneratorService", "its model is loaded and computes"},
      {"retrieval", "its retriever answers"},
  };
  return peer.name == "retriever" ? retriever : generator;
}

grpc::Status AskHealth(const Peer& peer, const HealthName& name, double timeout_s, std::string& state) {
  HealthCheckRequest request;
  request.set_service(name.name);
  HealthCheckResponse response;
  Call call(timeout_s);
  const grpc::Status status = Health::NewStub(peer.channel)->Check(call.context(), request, &response);
  if (status.ok()) state = HealthCheckResponse::ServingStatus_Name(response.status());
  return status;
}

}  // namespace retro::cli
