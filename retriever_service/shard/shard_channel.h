// Channels to shards in other processes.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

namespace retro {

// `address` is host:port or a gRPC name. One that nobody listens at is tried again within a second.
std::shared_ptr<grpc::Channel> MakeShardChannel(const std::string& address);

}  // namespace retro
