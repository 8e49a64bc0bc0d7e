#include "common/base/standing_team.h"

namespace retro {
namespace {

// About 100 µs.
constexpr int kSpins = 3'000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns once value != old.
template <typename T>
void AwaitChange(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

StandingTeam::StandingTeam(int size) {
  for (int worker = 1; worker < size; ++worker) threads_.emplace_back([this, worker] { Loop(worker); });
}

StandingTeam::~StandingTeam() {
  ending_.store(true, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void StandingTeam::Run(const std::function<void(int worker)>& body) {
  if (threads_.empty()) return body(0);
  body_ = &body;
  busy_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  body(0);
  for (int busy = busy_.load(std::memory_order_acquire); busy != 0; busy = busy_.load(std::memory_order_acquire)) {
    AwaitChange(busy_, busy);
  }
}

void StandingTeam::Loop(int worker) {
  for (uint32_t round = 0;; ++round) {
    AwaitChange(round_, round);
    if (ending_.load(std::memory_order_relaxed)) return;
    (*body_)(worker);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

}  // namespace retro
