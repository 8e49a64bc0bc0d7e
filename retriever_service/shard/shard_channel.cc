#include "retriever_service/shard/shard_channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/rpc/log.h"

namespace retro {
namespace {

constexpr int kMessageBytesMax = 64 << 20;
constexpr int kReconnectPauseMin_ms = 50;
constexpr int kReconnectPauseMax_ms = 500;
constexpr int kConnectWait_ms = 2000;

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectPauseMin_ms);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectWait_ms);  // what its name hides: the least wait
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectPauseMax_ms);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // else its pauses are those of whoever came first
  return arguments;
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> TryMake(const std::string& address, const ClientSecurity& security) {
  return MakeChannel(address, security, Arguments(), "peers-");
}

}  // namespace

absl::Status CheckShardChannels(const ClusterConfig& cluster, const ClientSecurity& security) {
  for (const ShardConfig& shard : cluster.shards) {
    for (const ReplicaConfig& replica : shard.replicas) {
      RETRO_RETURN_IF_ERROR(TryMake(replica.address, security).status());
    }
  }
  return absl::OkStatus();
}

std::shared_ptr<grpc::Channel> MakeShardChannel(const std::string& address, const ClientSecurity& security) {
  auto channel = TryMake(address, security);
  if (channel.ok()) return *std::move(channel);
  LogEvent(spdlog::level::err, "no channel", {{"address", address}, {"message", MessageOf(channel.status())}});
  return grpc::CreateCustomChannel(address, /*creds=*/nullptr, Arguments());  // whose calls fail
}

}  // namespace retro
