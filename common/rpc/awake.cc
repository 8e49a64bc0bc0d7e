#include "common/rpc/awake.h"

#include <grpcpp/create_channel.h>

#include <chrono>

namespace retro {
namespace {

constexpr std::chrono::milliseconds kCallEvery{400};

}  // namespace

Awake::Awake() : stub_(grpc::CreateChannel("", nullptr)) {
  repeating_.emplace(kCallEvery, [this] { Call(); });
}

Awake::~Awake() {
  repeating_.reset();
  const MutexLock lock(mutex_);
  while (calling_) ended_.Wait(mutex_);
}

void Awake::Call() {
  {
    const MutexLock lock(mutex_);
    if (calling_) return;
    calling_ = true;
  }
  context_.emplace();
  stub_.UnaryCall(&*context_, "/", grpc::StubOptions(), &nothing_, &reply_, [this](const grpc::Status&) {
    const MutexLock lock(mutex_);
    calling_ = false;
    ended_.NotifyAll();
  });
}

}  // namespace retro
