#include "trainer/curve.h"

#include <fmt/format.h>

#include <sstream>

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr char kHead[] =
    "step,tokens,loss,gradient_norm,learning_rate,tokens_per_second,validation_loss,validation_loss_without_neighbours";

std::string Cell(const std::optional<double>& value) { return value ? fmt::format("{:.6f}", *value) : ""; }

}  // namespace

absl::Status Curve::Open(const std::string& path, int64_t steps_done) {
  path_ = path;
  std::string kept = StrCat(kHead, "\n");
  if (const absl::StatusOr<std::string> old = ReadFile(path); old.ok()) {
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
      kept += line + "\n";
    }
  }
  RETRO_RETURN_IF_ERROR(WriteFileAtomically(path, kept));
  file_.open(path, std::ios::app);
  return absl::OkStatus();
}

absl::Status Curve::Add(const CurvePoint& p) {
  file_ << fmt::format("{},{},{:.9g},{:.6g},{:.6g},{:.0f},{},{}\n", p.step, p.tokens, p.loss, p.gradient_norm,
                       p.learning_rate, p.tokens_per_second, Cell(p.validation_loss),
                       Cell(p.validation_loss_without_neighbours))
        << std::flush;
  if (file_) return absl::OkStatus();
  return absl::ResourceExhaustedError(StrCat("cannot write ", path_, ": is the disk full?"));
}

}  // namespace retro
