// Python's pickle, protocol 2, as data: plain values and containers are read, everything else is noted and never run. A
// class or function is its name; a call is the name with its arguments. Bounded, for files of unknown origin: nothing
// here recurses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace retro {

inline constexpr size_t kPickleBytesMax = 64 << 20;
inline constexpr size_t kPickleValuesMax = 1'000'000;

struct PickleValue {
  enum class Kind {
    kNone,
    kBool,
    kInteger,
    kNumber,
    kText,
    kList,
    kTuple,
    kDict,
    kGlobal,      // `text` is "module\nname"
    kPersistent,  // something outside the pickle: `callable` is its id
    kObject,      // what `callable` gives for `arguments`, with `state` and `entries` set on it
  };

  Kind kind = Kind::kNone;
  int64_t integer = 0;                                                     // kBool: 0 or 1
  double number = 0;                                                       // kNumber
  std::string_view text;                                                   // kText, kGlobal: bytes of the pickle
  std::vector<const PickleValue*> items;                                   // kList, kTuple
  std::vector<std::pair<const PickleValue*, const PickleValue*>> entries;  // kDict, kObject
  const PickleValue* callable = nullptr;
  const PickleValue* arguments = nullptr;
  const PickleValue* state = nullptr;

  // The value of a text key; null if there is none, or if this has no entries.
  const PickleValue* Find(std::string_view key) const;
};

// Owns the values, which may refer to each other in circles. Views the bytes, which must outlive it.
class Pickle {
 public:
  // INVALID_ARGUMENT naming the byte at which the pickle is cut, malformed or uses what is not read here, or
  // for one of more bytes or values than the bounds.
  static absl::StatusOr<Pickle> Read(std::string_view bytes);

  Pickle(Pickle&&) = default;  // values stay where they are
  Pickle& operator=(Pickle&&) = default;

  const PickleValue& root() const { return *root_; }

 private:
  friend class PickleReader;
  Pickle() = default;

  std::deque<PickleValue> values_;
  const PickleValue* root_ = nullptr;
};

}  // namespace retro
