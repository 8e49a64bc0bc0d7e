#include "retriever_service/shard/remote_replica.h"

#include <utility>

#include "retriever_service/shard/shard_channel.h"

namespace retro {

using Clock = std::chrono::steady_clock;

RemoteReplica::RemoteReplica(std::string name, std::string address, const ClientSecurity& security)
    : name_(std::move(name)),
      address_(std::move(address)),
      channel_(MakeShardChannel(address_, security)),
      stub_(shardpb::ShardService::NewStub(channel_)),
      heard_(Clock::now()) {}

bool RemoteReplica::Connects() const {
  return channel_->GetState(/*try_to_connect=*/true) != GRPC_CHANNEL_TRANSIENT_FAILURE;
}

RemoteReplica::State RemoteReplica::state() const {
  const MutexLock lock(mutex_);
  return state_;
}

absl::Status RemoteReplica::why() const {
  const MutexLock lock(mutex_);
  return why_;
}

bool RemoteReplica::SetState(State state, const absl::Status& why) {
  const MutexLock lock(mutex_);
  why_ = why;
  return std::exchange(state_, state) != state;
}

void RemoteReplica::OnHeard() {
  heard_ = Clock::now();
  asked_in_vain_ = false;
}

void RemoteReplica::OnAskedInVain() { asked_in_vain_ = true; }

bool RemoteReplica::IsSilent() const { return asked_in_vain_ && Clock::now() - heard_.load() >= kAnswerMax; }

void RemoteReplica::SetPosition(const shardpb::Position& position) {
  const MutexLock lock(mutex_);
  position_ = position;
}

shardpb::Position RemoteReplica::position() const {
  const MutexLock lock(mutex_);
  return position_;
}

}  // namespace retro
