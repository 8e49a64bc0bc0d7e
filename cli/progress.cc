#include "cli/progress.h"

#include <algorithm>

#include "common/base/strings.h"
#include "fmt/format.h"

namespace retro::cli {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTerminalInterval{100};
constexpr std::chrono::milliseconds kLogInterval{5000};
constexpr double kSecondsBeforeForecast = 1;
constexpr char kClearLine[] = "\r\033[K";

}  // namespace

std::string ProgressLine(const ProgressState& state, double seconds) {
  const double elapsed = std::max(seconds, 1e-3);
  std::string line;
  double share = 0;
  if (state.bytes_total > 0) {
    share = static_cast<double>(state.bytes) / static_cast<double>(state.bytes_total);
  } else if (state.items_total > 0) {
    share = static_cast<double>(state.items) / static_cast<double>(state.items_total);
  }
  share = std::min(share, 1.0);
  if (share > 0) line += fmt::format("{:3.0f}% | ", share * 100);
  line += fmt::format("{} {}", Grouped(state.items), state.items_name);
  if (state.chunks > 0) line += fmt::format(", {} chunks", Grouped(state.chunks));
  line += fmt::format(" | {:.1f} {}/s", static_cast<double>(state.items) / elapsed, state.items_name);
  if (state.chunks > 0) line += fmt::format(", {:.0f} chunks/s", static_cast<double>(state.chunks) / elapsed);
  if (state.bytes > 0) line += fmt::format(", {:.2f} MB/s", static_cast<double>(state.bytes) / 1e6 / elapsed);
  if (share > 0 && seconds >= kSecondsBeforeForecast) {
    line += StrCat(" | ", HumanSeconds(elapsed / share - elapsed), " left");
  }
  return line;
}

Progress::Progress(const Console& console, bool quiet)
    : console_(console), quiet_(quiet), begin_(steady_clock::now()), next_(begin_ + kTerminalInterval) {
  if (!console_.err_terminal) next_ = begin_ + kLogInterval;
}

Progress::~Progress() { Clear(); }

double Progress::seconds() const { return std::chrono::duration<double>(steady_clock::now() - begin_).count(); }

void Progress::Show(const ProgressState& state) {
  const auto now = steady_clock::now();
  if (quiet_ || now < next_) return;
  next_ = now + (console_.err_terminal ? kTerminalInterval : kLogInterval);
  const std::string line = ProgressLine(state, seconds());
  if (console_.err_terminal) {
    console_.err << kClearLine << Shorten(line, static_cast<size_t>(console_.width) - 1) << std::flush;
    drawn_ = true;
  } else {
    console_.err << line << std::endl;
  }
}

void Progress::Clear() {
  if (drawn_) console_.err << kClearLine << std::flush;
  drawn_ = false;
}

}  // namespace retro::cli
