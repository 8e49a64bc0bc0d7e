// The learning curve of a run, one row a log interval: as CSV, and as TensorBoard's events beside it. What lies past
// the step that a run goes on from is cut from both.
#pragma once

#include <cstdint>
#include <fstream>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace retro {

struct CurvePoint {
  int64_t step = 0;    // steps done
  int64_t tokens = 0;  // labels learnt from in all
  double loss = 0;     // mean over the interval, nats a token
  double gradient_norm = 0;
  double learning_rate = 0;
  double tokens_per_second = 0;
  std::optional<double> validation_loss;  // with neighbours
  std::optional<double> validation_loss_without_neighbours;
};

inline constexpr char kCurveName[] = "curve.csv";

class Curve {
 public:
  // Keeps the rows of the folder's curve up to `steps_done`.
  absl::Status Open(const std::string& folder, int64_t steps_done);
  absl::Status Add(const CurvePoint& point);
  // Tokens of the last row that was kept.
  int64_t tokens() const { return tokens_; }

 private:
  std::string folder_;
  std::ofstream rows_;
  std::ofstream events_;
  int64_t tokens_ = 0;
};

}  // namespace retro
