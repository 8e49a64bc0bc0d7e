#include "common/rpc/peer_watch.h"

#include <algorithm>
#include <iterator>

namespace retro {
namespace {

constexpr std::chrono::milliseconds kLookEvery{1000};
constexpr std::chrono::milliseconds kLookEveryMin{1};
constexpr int kLooksMin = 4;  // within the time allowed

}  // namespace

PeerWatch::PeerWatch(std::chrono::milliseconds most)
    : most_(most), cancelling_(std::clamp(most / kLooksMin, kLookEveryMin, kLookEvery), [this] { CancelOverdue(); }) {}

PeerWatch::Entry PeerWatch::Begin(const grpc::CallbackServerContext& context) {
  const MutexLock lock(mutex_);
  waiting_.push_back({std::chrono::steady_clock::now(), &context});
  return std::prev(waiting_.end());
}

void PeerWatch::End(Entry waiting) {
  const MutexLock lock(mutex_);
  waiting_.erase(waiting);
}

void PeerWatch::CancelOverdue() {
  const auto overdue = std::chrono::steady_clock::now() - most_;
  const MutexLock lock(mutex_);
  for (Waiting& waiting : waiting_) {
    if (waiting.since > overdue) return;
    if (!waiting.cancelled) waiting.context->TryCancel();
    waiting.cancelled = true;
  }
}

}  // namespace retro
