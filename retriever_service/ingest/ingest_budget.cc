#include "retriever_service/ingest/ingest_budget.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>

namespace retro {
namespace {

// What this thread has still to call for those who wait; null while it calls for none.
thread_local std::deque<std::function<void()>>* t_ready = nullptr;

// How often who waits for room asks whether its caller has left.
constexpr std::chrono::milliseconds kCancelPoll{50};

}  // namespace

bool IngestBudget::Fits(size_t bytes) const {
  return documents_ == 0 || (documents_ < documents_max_ && bytes_ + bytes <= bytes_max_);
}

void IngestBudget::Acquire(size_t bytes, const std::string& key, std::function<void()> ready, const void* who) {
  {
    MutexLock lock(mutex_);
    if (!waiting_.empty() || !Fits(bytes)) {
      waiting_.Push(key, {bytes, std::move(ready), who});
      return;
    }
    ++documents_;
    bytes_ += bytes;
  }
  ready();
}

bool IngestBudget::Withdraw(const void* who) {
  bool found = false;
  {
    const MutexLock lock(mutex_);
    waiting_.RemoveIf([&](const Waiting& waiting) {
      found = found || waiting.who == who;
      return waiting.who == who;
    });
  }
  if (found) GiveBack(0, 0);  // who waited behind it may fit
  return found;
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

IngestRoom::IngestRoom(IngestBudget& budget, size_t bytes, const CallContext& context)
    : budget_(budget), bytes_(bytes) {
  Mutex mutex;
  CondVar changed;
  bool there = false;
  budget_.Acquire(
      bytes, context.key(),
      [&] {
        const MutexLock lock(mutex);
        there = true;
        changed.NotifyAll();
      },
      this);
  while (true) {
    {
      const MutexLock lock(mutex);
      const auto end = std::min(context.deadline, std::chrono::steady_clock::now() + kCancelPoll);
      while (!there && changed.WaitUntil(mutex, end)) {
      }
      if (there) return;
    }
    status_ = context.Check();
    if (status_.ok()) continue;
    if (budget_.Withdraw(this)) return;
    status_ = absl::OkStatus();  // it is being let in
    const MutexLock lock(mutex);
    while (!there) changed.Wait(mutex);
    return;
  }
}

void IngestRoom::ShrinkTo(size_t bytes) {
  if (bytes >= bytes_) return;
  budget_.Shrink(bytes_ - bytes);
  bytes_ = bytes;
}

}  // namespace retro
