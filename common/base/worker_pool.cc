#include "common/base/worker_pool.h"

#include <algorithm>
#include <utility>

namespace retro {
namespace {

constexpr size_t kQueueMax = size_t{1} << 40;  // more is no bound, and none that could be counted with

}  // namespace

WorkerPool::WorkerPool(int threads, size_t queue_max)
    : places_(threads + static_cast<int64_t>(std::min(queue_max, kQueueMax))), running_(threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

WorkerPool::~WorkerPool() { Stop(); }

bool WorkerPool::Submit(std::function<void()> work, const std::string& key, size_t* ahead) {
  {
    MutexLock lock(mutex_);
    if (stopping_ || !places_.TryTake(key)) return false;
    keys_.Note(key, SeveralKeys::Clock::now());
    if (ahead != nullptr) *ahead = waiting_.size(key);
    waiting_.Push(key, std::move(work));
    ++queued_;
  }
  wake_.NotifyOne();
  return true;
}

bool WorkerPool::RunHere(const std::function<void()>& work, const std::string& key) {
  std::string own_key;  // the caller's may end with the work
  {
    MutexLock lock(mutex_);
    keys_.Note(key, SeveralKeys::Clock::now());
    if (stopping_ || FindNext() || !MayRun(key) || !places_.TryTake(key)) return false;
    own_key = key;
    running_.Take(key);
  }
  work();
  {
    MutexLock lock(mutex_);
    running_.Release(own_key);
    places_.Release(own_key);
    if (waiting_.empty()) return true;
  }
  wake_.NotifyOne();  // a worker that this one stood in for
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

size_t WorkerPool::queued(const std::string& key) const {
  const MutexLock lock(mutex_);
  return waiting_.size(key);
}

bool WorkerPool::MayRun(const std::string& key) const {
  return keys_.lately(SeveralKeys::Clock::now()) ? running_.HasRoom(key) : running_.free() > 0;
}

bool WorkerPool::FindNext() {
  if (waiting_.empty() || running_.free() == 0) return false;
  if (!keys_.lately(SeveralKeys::Clock::now())) return true;
  const FairShare& running = running_;
  return waiting_.GiveTurn([&running](const std::string& key) { return running.HasRoom(key); });
}

void WorkerPool::Loop() {
  MutexLock lock(mutex_);
  while (true) {
    while (!FindNext() && !(stopping_ && waiting_.empty())) wake_.Wait(mutex_);
    if (waiting_.empty()) break;
    const std::string key = waiting_.key();
    std::function<void()> work = waiting_.Pop();
    --queued_;
    running_.Take(key);
    if (FindNext()) wake_.NotifyOne();  // what one end lets begin may be more than its thread takes
    mutex_.Unlock();
    work();
    work = nullptr;  // with all that it holds, before its place is another's
    mutex_.Lock();
    running_.Release(key);
    places_.Release(key);
  }
  wake_.NotifyAll();  // who waits for a place to run the last of what was queued: another has
}

}  // namespace retro
