#include "retriever_service/ingest/ingest_budget.h"

#include <utility>
#include <vector>

namespace retro {

bool IngestBudget::Fits(size_t bytes) const {
  return documents_ == 0 || (documents_ < documents_max_ && bytes_ + bytes <= bytes_max_);
}

void IngestBudget::Acquire(size_t bytes, const std::string& key, std::function<void()> ready) {
  {
    MutexLock lock(mutex_);
    if (!waiting_.empty() || !Fits(bytes)) {
      std::deque<Waiting>& same_key = waiting_[key];
      if (same_key.empty()) turns_.push_back(key);
      same_key.push_back({bytes, std::move(ready)});
      return;
    }
    ++documents_;
    bytes_ += bytes;
  }
  ready();
}

void IngestBudget::Release(size_t bytes) { GiveBack(1, bytes); }

void IngestBudget::Shrink(size_t bytes) { GiveBack(0, bytes); }

void IngestBudget::GiveBack(size_t documents, size_t bytes) {
  std::vector<std::function<void()>> ready;
  {
    MutexLock lock(mutex_);
    documents_ -= documents;
    bytes_ -= bytes;
    while (!turns_.empty() && Fits(waiting_[turns_.front()].front().bytes)) {
      const auto next = waiting_.find(turns_.front());
      ++documents_;
      bytes_ += next->second.front().bytes;
      ready.push_back(std::move(next->second.front().ready));
      next->second.pop_front();
      if (next->second.empty()) {
        waiting_.erase(next);
      } else {
        turns_.push_back(turns_.front());
      }
      turns_.pop_front();
    }
  }
  for (const auto& callback : ready) callback();
}

size_t IngestBudget::documents() const {
  MutexLock lock(mutex_);
  return documents_;
}

size_t IngestBudget::bytes() const {
  MutexLock lock(mutex_);
  return bytes_;
}

IngestRoom::IngestRoom(IngestBudget& budget, size_t bytes, const std::string& key) : budget_(budget), bytes_(bytes) {
  Mutex mutex;
  CondVar changed;
  bool there = false;
  budget_.Acquire(bytes, key, [&] {
    const MutexLock lock(mutex);
    there = true;
    changed.NotifyAll();
  });
  const MutexLock lock(mutex);
  while (!there) changed.Wait(mutex);
}

void IngestRoom::ShrinkTo(size_t bytes) {
  if (bytes >= bytes_) return;
  budget_.Shrink(bytes_ - bytes);
  bytes_ = bytes;
}

}  // namespace retro
