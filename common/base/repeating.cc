#include "common/base/repeating.h"

#include <utility>

namespace retro {

Repeating::Repeating(std::chrono::milliseconds interval, std::function<void()> what)
    : interval_(interval), what_(std::move(what)) {
  what_();
  thread_ = std::thread([this] { Run(); });
}

Repeating::~Repeating() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  thread_.join();
}

void Repeating::Run() {
  const MutexLock lock(mutex_);
  while (!stopping_) {
    if (!wake_.WaitUntil(mutex_, std::chrono::steady_clock::now() + interval_)) what_();
  }
}

}  // namespace retro
