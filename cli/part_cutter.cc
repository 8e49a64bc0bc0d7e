#include "cli/part_cutter.h"

#include <utility>

namespace retro::cli {
namespace {

constexpr std::string_view kWhiteSpace = " \t\r\n\f\v";

// Where a text longer than `most` is cut: 1 ... most.
size_t CutAt(std::string_view text, size_t most) {
  const std::string_view head = text.substr(0, most);
  for (const std::string_view border : {"\n\n", "\n\r\n", "\n", " "}) {
    const size_t at = head.rfind(border);
    if (at != std::string_view::npos && at > 0) return at + border.size();
  }
  size_t at = most;
  while (at > 1 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return at;
}

}  // namespace

void PartCutter::Append(std::string_view text) {
  buffer_ += text;
  size_t begin = 0;
  while (buffer_.size() - begin > part_bytes_) {
    const std::string_view rest = std::string_view(buffer_).substr(begin);
    const size_t cut = CutAt(rest, part_bytes_);
    was_cut_ = true;
    Push(std::string(rest.substr(0, cut)));
    begin += cut;
  }
  buffer_.erase(0, begin);
}

void PartCutter::Finish() {
  Push(std::move(buffer_));
  buffer_.clear();
}

std::string PartCutter::Take() {
  std::string part = std::move(parts_.front());
  parts_.pop_front();
  return part;
}

void PartCutter::Push(std::string part) {
  if (part.find_first_not_of(kWhiteSpace) != std::string::npos) parts_.push_back(std::move(part));
}

}  // namespace retro::cli
