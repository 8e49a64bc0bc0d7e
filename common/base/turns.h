// What waits for its turn, fair between those whom it is for.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <map>
#include <string>
#include <utility>

namespace retro {

// Keys that have something waiting take turns; what is of one key goes in the order it came. Not thread-safe.
template <typename Item>
class Turns {
 public:
  bool empty() const { return turns_.empty(); }
  size_t size(const std::string& key) const {
    const auto of_key = waiting_.find(key);
    return of_key == waiting_.end() ? 0 : of_key->second.size();
  }

  void Push(const std::string& key, Item item) {
    std::deque<Item>& of_key = waiting_[key];
    if (of_key.empty()) turns_.push_back(key);
    of_key.push_back(std::move(item));
  }

  // Whose turn it is, and its first. Not empty.
  const std::string& key() const { return turns_.front(); }
  Item& front() { return waiting_.find(turns_.front())->second.front(); }

  // Takes front() out; the turn is the next key's. Not empty.
  Item Pop() {
    const auto first = waiting_.find(turns_.front());
    Item item = std::move(first->second.front());
    first->second.pop_front();
    if (first->second.empty()) {
      waiting_.erase(first);
    } else {
      turns_.push_back(std::move(turns_.front()));
    }
    turns_.pop_front();
    return item;
  }

  // Gives the turn to the first key of which `may_go(key)` is true; the others keep their order. False if there is
  // none.
  template <typename Predicate>
  bool GiveTurn(Predicate may_go) {
    const auto turn = std::find_if(turns_.begin(), turns_.end(), may_go);
    if (turn == turns_.end()) return false;
    std::rotate(turns_.begin(), turn, turn + 1);
    return true;
  }

  // Takes out what `is_one(item)` is true of.
  template <typename Predicate>
  void RemoveIf(Predicate is_one) {
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      std::erase_if(it->second, is_one);
      if (!it->second.empty()) {
        ++it;
        continue;
      }
      std::erase(turns_, it->first);
      it = waiting_.erase(it);
    }
  }

 private:
  std::map<std::string, std::deque<Item>> waiting_;  // by key; none is empty
  std::deque<std::string> turns_;                    // the keys of waiting_, whose turn it is first
};

}  // namespace retro
