// MarkdownTitle of document_reader.h.
#include <algorithm>
#include <string>
#include <string_view>

#include "cli/document_reader.h"

namespace retro::cli {
namespace {

constexpr size_t kHeadingMarksMax = 6;
constexpr size_t kTitleBytesMax = 1024;  // a longer "heading" is none

std::string_view Trimmed(std::string_view line) {
  const size_t begin = line.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return line.substr(begin, line.find_last_not_of(" \t\r") + 1 - begin);
}

// "## Title ##" -> "Title"; "" if it is no such heading.
std::string_view HashHeading(std::string_view line) {
  const size_t marks = std::min(line.find_first_not_of('#'), line.size());
  if (marks == 0 || marks > kHeadingMarksMax || marks == line.size()) return {};
  if (line[marks] != ' ' && line[marks] != '\t') return {};
  std::string_view title = Trimmed(line.substr(marks));
  while (title.ends_with('#')) title.remove_suffix(1);
  return Trimmed(title);
}

bool IsUnderline(std::string_view line) {
  return line.size() >= 2 && (line.find_first_not_of('=') == line.npos || line.find_first_not_of('-') == line.npos);
}

}  // namespace

std::string MarkdownTitle(std::string_view text) {
  std::string_view previous;
  bool fenced = false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = Trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.starts_with("```") || line.starts_with("~~~")) {
      fenced = !fenced;
      previous = {};
      continue;
    }
    if (fenced) continue;
    std::string_view title = HashHeading(line);
    if (title.empty() && IsUnderline(line) && !IsUnderline(previous)) title = previous;
    if (!title.empty() && title.size() <= kTitleBytesMax) return std::string(title);
    previous = line;
  }
  return "";
}

}  // namespace retro::cli
