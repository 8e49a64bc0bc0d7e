#include "retriever_service/ingest/ingest_budget.h"

#include <deque>
#include <utility>

namespace retro {
namespace {

// What this thread has still to call for those who wait; null while it calls for none.
thread_local std::deque<std::function<void()>>* t_ready = nullptr;

}  // namespace

bool IngestBudget::Fits(size_t bytes) const {
  return documents_ == 0 || (documents_ < documents_max_ && bytes_ + bytes <= bytes_max_);
}

void IngestBudget::Acquire(size_t bytes, const std::string& key, std::function<void()> ready) {
  {
    MutexLock lock(mutex_);
    if (!waiting_.empty() || !Fits(bytes)) {
      waiting_.Push(key, {bytes, std::move(ready)});
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
  std::deque<std::function<void()>> own;
  std::deque<std::function<void()>>& ready = t_ready != nullptr ? *t_ready : own;
  {
    MutexLock lock(mutex_);
    documents_ -= documents;
    bytes_ -= bytes;
    while (!waiting_.empty() && Fits(waiting_.front().bytes)) {
      Waiting next = waiting_.Pop();
      ++documents_;
      bytes_ += next.bytes;
      ready.push_back(std::move(next.ready));
    }
  }
  if (t_ready != nullptr) return;  // inside a callback below: else each of thousands that wait would nest in another
  t_ready = &own;
  for (; !own.empty(); own.pop_front()) own.front()();
  t_ready = nullptr;
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
