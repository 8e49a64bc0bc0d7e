#include "retriever_service/shard/shard_channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>
#include <spdlog/spdlog.h>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr int kMessageBytesMax = 64 << 20;
constexpr int kReconnectPauseMin_ms = 50;
constexpr int kReconnectPauseMax_ms = 500;
constexpr int kConnectWait_ms = 2000;

absl::StatusOr<std::shared_ptr<grpc::Channel>> TryMakeChannel(const std::string& address,
                                                              const ClientSecurity& security) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectPauseMin_ms);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectWait_ms);  // what its name hides: the least wait
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectPauseMax_ms);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // else its pauses are those of whoever came first
  return MakeChannel(address, security, arguments, "shards-");
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeShardChannel(const std::string& address, const ClientSecurity& security) {
  auto channel = TryMakeChannel(address, security);
  if (channel.ok()) return *std::move(channel);
  spdlog::error("{} is not called: {}", address, MessageOf(channel.status()));
  return grpc::CreateChannel(address, /*creds=*/nullptr);  // whose calls fail
}

absl::Status CheckShardSecurity(const ClusterConfig& config, const ClientSecurity& security) {
  for (const ShardConfig& shard : config.shards) {
    for (const ReplicaConfig& replica : shard.replicas) {
      RETRO_RETURN_IF_ERROR(TryMakeChannel(replica.address, security).status());
    }
  }
  return absl::OkStatus();
}

}  // namespace retro
