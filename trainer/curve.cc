#include "trainer/curve.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <sstream>
#include <utility>
#include <vector>

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "trainer/event_file.h"

namespace retro {
namespace {

// Columns, which are also TensorBoard's tags; the first is the step.
constexpr std::string_view kColumns[] = {"step",
                                         "tokens",
                                         "loss",
                                         "gradient_norm",
                                         "learning_rate",
                                         "tokens_per_second",
                                         "validation_loss",
                                         "validation_loss_without_neighbours"};

std::string Cell(const std::optional<double>& value) { return value ? fmt::format("{:.6f}", *value) : ""; }

std::string Row(const CurvePoint& p) {
  return fmt::format("{},{},{:.9g},{:.6g},{:.6g},{:.0f},{},{}", p.step, p.tokens, p.loss, p.gradient_norm,
                     p.learning_rate, p.tokens_per_second, Cell(p.validation_loss),
                     Cell(p.validation_loss_without_neighbours));
}

template <typename Number>
std::optional<Number> ReadCell(const std::string& cell) {
  Number value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size()) return std::nullopt;
  return value;
}

double WallTimeS() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// The event of a row; empty for what is no row.
std::string EventOf(const std::string& row) {
  std::istringstream cells(row);
  std::vector<std::pair<std::string_view, double>> scalars;
  int64_t step = -1;
  size_t column = 0;
  for (std::string cell; std::getline(cells, cell, ',') && column < std::size(kColumns); ++column) {
    if (column == 0) {
      step = ReadCell<int64_t>(cell).value_or(-1);
    } else if (const std::optional<double> value = ReadCell<double>(cell)) {
      scalars.emplace_back(kColumns[column], *value);
    }
  }
  return step < 0 ? "" : ScalarEvent(WallTimeS(), step, scalars);
}

}  // namespace

absl::Status Curve::Open(const std::string& folder, int64_t steps_done) {
  folder_ = folder;
  std::string rows = fmt::format("{}\n", fmt::join(kColumns, ","));
  std::string events = EventFileHead(WallTimeS());
  if (const absl::StatusOr<std::string> old = ReadFile(folder + "/" + kCurveName); old.ok()) {
    std::istringstream lines(*old);
    std::string line;
    std::getline(lines, line);
    while (std::getline(lines, line)) {
      std::istringstream cells(line);
      int64_t step = 0;
      int64_t tokens = 0;
      char comma = 0;
      if (!(cells >> step >> comma >> tokens) || step > steps_done) break;
      tokens_ = tokens;
      rows += line + "\n";
      events += EventOf(line);
    }
  }
  RETRO_RETURN_IF_ERROR(WriteFileAtomically(folder + "/" + kCurveName, rows));
  RETRO_RETURN_IF_ERROR(WriteFileAtomically(folder + "/" + kEventFileName, events));
  rows_.open(folder + "/" + kCurveName, std::ios::app);
  events_.open(folder + "/" + kEventFileName, std::ios::app | std::ios::binary);
  return absl::OkStatus();
}

absl::Status Curve::Add(const CurvePoint& point) {
  const std::string row = Row(point);
  rows_ << row << "\n" << std::flush;
  events_ << EventOf(row) << std::flush;
  if (rows_ && events_) return absl::OkStatus();
  return absl::ResourceExhaustedError(StrCat("cannot write ", folder_, "/", kCurveName, ": is the disk full?"));
}

}  // namespace retro
