// A replica of a shard in another process, as a router knows it.
#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/base/sync.h"
#include "common/document/protos.h"
#include "common/rpc/credentials.h"
#include "retro/shard/v1/shard.grpc.pb.h"

namespace retro {

// Any thread.
class RemoteReplica {
 public:
  // Away: it did not answer, and is asked only if no other is left. Refused: it answered that it is not what the
  // cluster file says, and is never asked.
  enum class State { kUsable, kAway, kRefused };

  // How long it may take to say how it is; less proves nothing.
  static constexpr std::chrono::milliseconds kAnswerMax{1000};

  RemoteReplica(std::string name, std::string address, const ClientSecurity& security);

  const std::string& name() const { return name_; }
  const std::string& address() const { return address_; }
  shardpb::ShardService::Stub& stub() const { return *stub_; }
  // False while nothing listens there: a call would not reach it. Makes it try again.
  bool Connects() const;

  State state() const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status why() const ABSL_LOCKS_EXCLUDED(mutex_);  // it is not usable
  // True if that is a change.
  bool SetState(State state, const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);

  // As it last said.
  void SetPosition(const shardpb::Position& position) ABSL_LOCKS_EXCLUDED(mutex_);
  shardpb::Position position() const ABSL_LOCKS_EXCLUDED(mutex_);

  // It has answered something, if only that it is busy.
  void OnHeard();
  // It was asked how it is, and no answer came.
  void OnAskedInVain();
  // True if no answer came when it was last asked how it is, and none to anything else for kAnswerMax.
  bool IsSilent() const;

  std::atomic<int> calls{0};       // outstanding
  std::atomic<int> overtaken{0};   // reads since it last answered anything that another replica, asked later, answered
  std::atomic<bool> asked{false};  // how it is, and has not answered yet

 private:
  const std::string name_, address_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<shardpb::ShardService::Stub> stub_;
  std::atomic<std::chrono::steady_clock::time_point> heard_;
  std::atomic<bool> asked_in_vain_{false};
  mutable Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kUsable;
  absl::Status why_ ABSL_GUARDED_BY(mutex_);
  shardpb::Position position_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace retro
