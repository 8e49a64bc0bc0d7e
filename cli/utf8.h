// UTF-8 that arrives in pieces: checked, or repaired.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace retro::cli {

// Length of the longest prefix that is valid UTF-8 (no overlong forms, no surrogates).
size_t ValidUtf8Prefix(std::string_view bytes);

// True if `bytes`, at most 3 of them, could be the beginning of a longer character.
bool IsUtf8Beginning(std::string_view bytes);

// `bytes` with everything invalid replaced by U+FFFD.
std::string RepairedUtf8(std::string_view bytes);

// Turns a file's bytes into text: drops a byte order mark, refuses binary data (NUL bytes) and, unless it repairs, what
// is no UTF-8.
class Utf8Stage {
 public:
  explicit Utf8Stage(bool repair) : repair_(repair) {}
  // Appends the whole characters of `bytes` to `text`; what is left of a character waits for the next piece.
  // INVALID_ARGUMENT with the place of the first bad byte.
  absl::Status Feed(std::string_view bytes, std::string* text);
  // After the last piece.
  absl::Status Finish(std::string* text);

 private:
  absl::Status Take(std::string_view bytes, bool last, std::string* text);

  bool repair_;
  bool began_ = false;
  size_t offset_ = 0;  // of rest_ in the file
  std::string rest_;
};

}  // namespace retro::cli
