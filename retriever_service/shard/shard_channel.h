// Channels to shards in other processes.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/rpc/credentials.h"
#include "retriever_service/cluster/cluster_file.h"

namespace retro {

// `address` is host:port or a gRPC name. One that nobody listens at is tried again within a second. One that may not be
// called with this security is logged, and every call fails.
std::shared_ptr<grpc::Channel> MakeShardChannel(const std::string& address,
                                                const ClientSecurity& security = ClientSecurity());

// What is wrong with calling the replicas of a cluster so, if anything.
absl::Status CheckShardSecurity(const ClusterConfig& config, const ClientSecurity& security);

}  // namespace retro
