// From the bytes of tokens to text that a stream can send: whole characters, and nothing that may yet turn out to be
// the beginning of a stop string.
//
// The texts together are the bytes together, byte for byte where these are valid UTF-8. Where they are not, each
// maximal part that cannot become a character gives one U+FFFD (Unicode 15, section 3.9, "substitution of maximal
// subparts", as Python's decode(errors="replace")), since protobuf's strings hold valid UTF-8 only.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace retro {

// Bytes in pieces to valid UTF-8. The cuts between the pieces make no difference to the whole.
class Utf8Mender {
 public:
  // The text that is certain after these bytes. An incomplete character at the end is kept for the next call.
  std::string Append(std::string_view bytes);
  // What was kept, as U+FFFD. Call once, at the end.
  std::string Finish();

 private:
  std::string incomplete_;  // at most three bytes, the beginning of some valid character
};

class TextAssembler {
 public:
  // Stop strings: valid UTF-8, not empty.
  explicit TextAssembler(std::vector<std::string> stop_strings) : stop_strings_(std::move(stop_strings)) {}

  struct Output {
    std::string text;            // what is certain now
    std::optional<size_t> stop;  // the stop string that was met; `text` ends before it, and nothing follows
  };

  // Bytes that cannot stop the generation: of the prompt. Before any call of Append.
  std::string AppendPrompt(std::string_view bytes) { return mender_.Append(bytes); }
  // Of several stop strings the one that is complete first counts, and of those the longest: it does not matter how the
  // bytes are cut into tokens. Not after a stop.
  Output Append(std::string_view bytes);
  // What was held back. Call once, at the end; empty after a stop.
  std::string Finish();

 private:
  std::optional<size_t> FindStop(size_t* begin) const;
  // Length of the longest end of `held_` that begins a stop string.
  size_t UncertainLength() const;

  const std::vector<std::string> stop_strings_;
  Utf8Mender mender_;
  std::string held_;  // valid text, not sent yet
  bool stopped_ = false;
};

// The longest stretch of valid UTF-8 in `bytes` (the first of several), a view into it.
std::string_view LongestValidUtf8(std::string_view bytes);

}  // namespace retro
