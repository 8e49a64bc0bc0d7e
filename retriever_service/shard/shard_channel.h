// Channels to shards in other processes.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/rpc/credentials.h"
#include "retriever_service/cluster/cluster_file.h"

namespace retro {

// INVALID_ARGUMENT that names the --peers- flag if a replica may not be called with `security`.
absl::Status CheckShardChannels(const ClusterConfig& cluster, const ClientSecurity& security);

// `address` is host:port or a gRPC name. One that nobody listens at is tried again within a second. What
// CheckShardChannels would refuse is logged, and all calls of the channel fail.
std::shared_ptr<grpc::Channel> MakeShardChannel(const std::string& address,
                                                const ClientSecurity& security = ClientSecurity());

}  // namespace retro
