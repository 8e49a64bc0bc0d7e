// Where a command reads and writes: the process's streams, or a test's.
#pragma once

#include <istream>
#include <ostream>
#include <string>
#include <string_view>

namespace retro::cli {

// References to streams that outlive the command. Written to by one thread at a time.
struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_terminal = false;
  bool out_terminal = false;
  bool err_terminal = false;
  int width = 80;  // columns

  // Standard input, output and error.
  static Console OfProcess();

  // "retro: MESSAGE" on err, as one line.
  void Error(std::string_view message) const;
};

// `text` with control characters other than line breaks and tabs replaced, so that no document can drive a terminal.
std::string Printable(std::string_view text);
// The same on one line: white space runs become one space.
std::string OneLine(std::string_view text);
// One line of at most `columns` characters, with "..." if it was cut.
std::string Shorten(std::string_view text, size_t columns);
// `text` as one paragraph broken at spaces to `columns`, each line indented by `indent` spaces and ended.
std::string Wrap(std::string_view text, size_t indent, size_t columns);

// Terminal colours; empty strings where they are not wanted.
struct Style {
  std::string_view bold, dim, mark, reset;
};
Style StyleFor(bool terminal);

// 1234567 as "1,234,567".
std::string Grouped(uint64_t number);
// Bytes as "12 B", "3.4 kB", "5.6 MB", "7.8 GB".
std::string HumanBytes(double bytes);
// Seconds as "12 s", "3 min 4 s", "5 h 6 min".
std::string HumanSeconds(double seconds);

}  // namespace retro::cli
