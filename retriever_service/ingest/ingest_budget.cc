#include "retriever_service/ingest/ingest_budget.h"

#include <utility>
#include <vector>

namespace retro {

bool IngestBudget::Fits(size_t bytes) const {
  return documents_ == 0 || (documents_ < documents_max_ && bytes_ + bytes <= bytes_max_);
}

void IngestBudget::Acquire(size_t bytes, std::function<void()> ready) {
  {
    MutexLock lock(mutex_);
    if (!waiting_.empty() || !Fits(bytes)) {
      waiting_.push_back({bytes, std::move(ready)});
      return;
    }
    ++documents_;
    bytes_ += bytes;
  }
  ready();
}

void IngestBudget::Release(size_t bytes) {
  std::vector<std::function<void()>> ready;
  {
    MutexLock lock(mutex_);
    --documents_;
    bytes_ -= bytes;
    while (!waiting_.empty() && Fits(waiting_.front().bytes)) {
      ++documents_;
      bytes_ += waiting_.front().bytes;
      ready.push_back(std::move(waiting_.front().ready));
      waiting_.pop_front();
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

}  // namespace retro
