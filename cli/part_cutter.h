// Long texts become parts: the server takes documents up to a bound, and shorter ones make better answers.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>

namespace retro::cli {

// Cuts text that arrives in pieces into parts of at most `part_bytes`: after the last blank line that fits, else after
// the last line, else the last space, else between characters. The parts together are the text, except that parts of
// white space alone are dropped. Memory: one part and a piece.
class PartCutter {
 public:
  explicit PartCutter(size_t part_bytes) : part_bytes_(part_bytes) {}

  void Append(std::string_view text);
  // No more text comes.
  void Finish();

  bool empty() const { return parts_.empty(); }
  // The next part; not if empty().
  std::string Take();
  // True as soon as there is more than one part. Known by the time that the first one can be taken.
  bool was_cut() const { return was_cut_; }

 private:
  void Push(std::string part);

  const size_t part_bytes_;
  std::string buffer_;
  std::deque<std::string> parts_;
  bool was_cut_ = false;
};

}  // namespace retro::cli
