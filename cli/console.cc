#include "cli/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <iostream>

#include "fmt/format.h"

namespace retro::cli {
namespace {

constexpr int kWidthMin = 40;
constexpr int kWidthMax = 120;  // longer lines are hard to read

bool IsControl(unsigned char c) { return c < 0x20 || c == 0x7f; }
bool IsContinuationByte(unsigned char c) { return (c & 0xc0) == 0x80; }

size_t Columns(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(),
                                           [](char c) { return !IsContinuationByte(static_cast<unsigned char>(c)); }));
}

}  // namespace

Console Console::OfProcess() {
  Console console{std::cin, std::cout, std::cerr};
  console.in_terminal = isatty(STDIN_FILENO) != 0;
  console.out_terminal = isatty(STDOUT_FILENO) != 0;
  console.err_terminal = isatty(STDERR_FILENO) != 0;
  winsize size{};
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
      console.width = std::clamp<int>(size.ws_col, kWidthMin, kWidthMax);
      break;
    }
  }
  return console;
}

void Console::Error(std::string_view message) const { err << "retro: " << OneLine(message) << std::endl; }

std::string Printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    // U+0080 ... U+009F are control characters too, to some terminals.
    if (c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0) {
      result += '?';
      ++i;
    } else {
      result += IsControl(c) && c != '\n' && c != '\t' ? '?' : text[i];
    }
  }
  return result;
}

std::string OneLine(std::string_view text) {
  std::string result;
  for (const char c : Printable(text)) {
    if (c != ' ' && c != '\n' && c != '\t') {
      result += c;
    } else if (!result.empty() && result.back() != ' ') {
      result += ' ';
    }
  }
  if (!result.empty() && result.back() == ' ') result.pop_back();
  return result;
}

std::string Shorten(std::string_view text, size_t columns) {
  std::string line = OneLine(text);
  if (Columns(line) <= columns) return line;
  const size_t kept = columns > 3 ? columns - 3 : columns;
  size_t end = 0;
  for (size_t seen = 0; end < line.size(); ++end) {
    if (!IsContinuationByte(static_cast<unsigned char>(line[end])) && seen++ == kept) break;
  }
  line.resize(end);
  return line + "...";
}

std::string Wrap(std::string_view text, size_t indent, size_t columns) {
  const std::string line = OneLine(text);
  const std::string margin(indent, ' ');
  const size_t room = columns > indent + 20 ? columns - indent : 20;
  std::string result;
  std::string row;
  for (size_t begin = 0; begin < line.size();) {
    const size_t end = std::min(line.find(' ', begin), line.size());
    const std::string word = line.substr(begin, end - begin);
    if (!row.empty() && Columns(row) + 1 + Columns(word) > room) {
      result += margin + row + "\n";
      row.clear();
    }
    row += (row.empty() ? "" : " ") + word;
    begin = end + 1;
  }
  if (!row.empty()) result += margin + row + "\n";
  return result;
}

Style StyleFor(bool terminal) {
  // https://no-color.org
  if (!terminal || std::getenv("NO_COLOR") != nullptr) return {};
  return {"\033[1m", "\033[2m", "\033[32m", "\033[0m"};
}

std::string Grouped(uint64_t number) {
  std::string digits = std::to_string(number);
  for (size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, 1, ',');
  return digits;
}

std::string HumanBytes(double bytes) {
  if (bytes < 1e3) return fmt::format("{:.0f} B", bytes);
  if (bytes < 1e6) return fmt::format("{:.1f} kB", bytes / 1e3);
  if (bytes < 1e9) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{:.2f} GB", bytes / 1e9);
}

std::string HumanSeconds(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace retro::cli
