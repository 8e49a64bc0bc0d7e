// How a bounded number of places is shared by callers who do not know of each other, so that one who asks for all of
// them leaves some to the next: dynamic thresholds (Choudhury and Hahne 1998, "Dynamic queue length thresholds for
// shared-memory packet switches").
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace retro {

// One thread at a time.
class FairShare {
 public:
  explicit FairShare(int64_t places) : places_(places) {}

  // Whether `key` may have `count` places more. Not if there are none, or if it holds so many that what is left is for
  // others: before it gets them it holds less than four times as many as are free for the last of them, so that one by
  // one a key alone fills four fifths, two of them four ninths each; who holds none gets whatever is free. "" is nobody
  // in particular, who may have all.
  bool HasRoom(const std::string& key, int64_t count = 1) const { return free() >= FreeNeeded(key, count); }
  // How many must be free for that.
  int64_t FreeNeeded(const std::string& key, int64_t count) const { return count + Held(key) / kFreeTimesMax; }
  // False if it could not be even if all others gave theirs back: only once the key has given back some of its own.
  bool MightHaveRoom(const std::string& key, int64_t count) const {
    return places_ - Held(key) >= FreeNeeded(key, count);
  }
  // Takes them if it may.
  bool TryTake(const std::string& key, int64_t count = 1) {
    if (!HasRoom(key, count)) return false;
    Take(key, count);
    return true;
  }
  // Takes them whether they are free or not.
  void Take(const std::string& key, int64_t count = 1) {
    taken_ += count;
    if (!key.empty()) held_[key] += count;
  }
  void Release(const std::string& key, int64_t count = 1) {
    taken_ -= count;
    const auto held = held_.find(key);
    if (held != held_.end() && (held->second -= count) == 0) held_.erase(held);
  }

  int64_t taken() const { return taken_; }
  int64_t free() const { return places_ - taken_; }
  bool holds_some(const std::string& key) const { return held_.contains(key); }

 private:
  static constexpr int64_t kFreeTimesMax = 4;

  int64_t Held(const std::string& key) const {
    const auto held = held_.find(key);
    return held == held_.end() ? 0 : held->second;
  }

  const int64_t places_;
  int64_t taken_ = 0;
  std::map<std::string, int64_t> held_;  // of those who hold any
};

// Whether more than one key has come within a minute, lately: who is alone need leave nothing free for the next. One
// thread at a time.
class SeveralKeys {
 public:
  using Clock = std::chrono::steady_clock;

  void Note(const std::string& key, Clock::time_point now) {
    if (last_.has_value() && *last_ != key && now < last_came_ + kLately) until_ = now + kLately;
    if (last_ != key) last_ = key;
    last_came_ = now;
  }
  bool lately(Clock::time_point now) const { return now < until_; }
  // When that ends, if nobody else comes.
  Clock::time_point until() const { return until_; }

 private:
  static constexpr std::chrono::seconds kLately{60};

  std::optional<std::string> last_;
  Clock::time_point last_came_;
  Clock::time_point until_ = Clock::time_point::min();
};

}  // namespace retro
