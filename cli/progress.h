// What a long command shows while it runs.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "cli/console.h"

namespace retro::cli {

// Where the work stands.
struct ProgressState {
  uint64_t items = 0;        // done
  std::string items_name;    // "documents"
  uint64_t chunks = 0;       // 0 is not shown
  uint64_t bytes = 0;        // done
  uint64_t bytes_total = 0;  // 0: not known
  uint64_t items_total = 0;  // 0: not known; where there are no bytes to measure by
};

// The text of a progress line: share, items, rates, time left.
std::string ProgressLine(const ProgressState& state, double seconds);

// On a terminal one line that is drawn again ten times a second, else a line every few seconds. Not thread-safe.
class Progress {
 public:
  Progress(const Console& console, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Cheap enough to be called for each item.
  void Show(const ProgressState& state);
  // Takes the line away, so that something else can be printed.
  void Clear();
  double seconds() const;

 private:
  const Console& console_;
  const bool quiet_;
  const std::chrono::steady_clock::time_point begin_;
  std::chrono::steady_clock::time_point next_;
  bool drawn_ = false;
};

}  // namespace retro::cli
