#include "retriever_service/shard/shard_channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

namespace retro {
namespace {

constexpr int kMessageBytesMax = 64 << 20;
constexpr int kReconnectPauseMin_ms = 50;
constexpr int kReconnectPauseMax_ms = 500;
constexpr int kConnectWait_ms = 2000;

}  // namespace

std::shared_ptr<grpc::Channel> MakeShardChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectPauseMin_ms);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectWait_ms);  // what its name hides: the least wait
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectPauseMax_ms);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // else its pauses are those of whoever came first
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace retro
