#include "common/base/worker_pool.h"

#include <utility>

namespace retro {

WorkerPool::WorkerPool(int threads, size_t queue_max) : places_(threads + static_cast<int64_t>(queue_max)) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

WorkerPool::~WorkerPool() { Stop(); }

bool WorkerPool::Submit(std::function<void()> work, const std::string& key) {
  MutexLock lock(mutex_);
  if (stopping_ || !places_.TryTake(key)) return false;
  auto& queue = queues_[key];
  if (queue.empty()) turns_.push_back(key);
  queue.push_back(std::move(work));
  ++queued_;
  wake_.NotifyOne();
  return true;
}

void WorkerPool::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

size_t WorkerPool::queued() const {
  MutexLock lock(mutex_);
  return queued_;
}

std::pair<std::function<void()>, std::string> WorkerPool::TakeNext() {
  std::string key = std::move(turns_.front());
  turns_.pop_front();
  const auto queue = queues_.find(key);
  std::function<void()> work = std::move(queue->second.front());
  queue->second.pop_front();
  if (queue->second.empty()) {
    queues_.erase(queue);
  } else {
    turns_.push_back(key);
  }
  --queued_;
  return {std::move(work), std::move(key)};
}

void WorkerPool::Loop() {
  while (true) {
    std::pair<std::function<void()>, std::string> next;
    {
      MutexLock lock(mutex_);
      while (turns_.empty() && !stopping_) wake_.Wait(mutex_);
      if (turns_.empty()) return;
      next = TakeNext();
    }
    next.first();
    MutexLock lock(mutex_);
    places_.Release(next.second);
  }
}

}  // namespace retro
