#include "generator_service/engine/prefill_pace.h"

#include <algorithm>

namespace retro {
namespace {

constexpr int64_t kFirstTokens = 8;      // while it is not known what they take
constexpr int64_t kStepsBesideMax = 32;  // between two measurements of a step alone
constexpr double kSmoothing = 0.5;       // weight of the newest time

void Smooth(double& average, double value, bool first) {
  average = first ? value : average + kSmoothing * (value - average);
}

}  // namespace

int64_t PrefillPace::Tokens() const {
  if (tokens_min_ == tokens_max_) return tokens_max_;  // there is nothing to learn
  if (!measured_ || steps_beside_ >= kStepsBesideMax) return 0;
  return token_s_ <= 0 && steps_beside_ > 0 ? tokens_max_ : Fitting();
}

int64_t PrefillPace::TokensMeanwhile() const { return Fitting(); }

int64_t PrefillPace::Fitting() const {
  if (token_s_ <= 0) return std::clamp(kFirstTokens, tokens_min_, tokens_max_);
  const double fitting = (kSlowdown - 1) * alone_s_ / token_s_;
  return fitting >= static_cast<double>(tokens_max_) ? tokens_max_
                                                     : std::max(static_cast<int64_t>(fitting), tokens_min_);
}

void PrefillPace::Note(int64_t prefill_tokens, std::chrono::nanoseconds time) {
  const double seconds = std::chrono::duration<double>(time).count();
  if (prefill_tokens == 0) {
    // A step that something held up must not count for the next ones.
    Smooth(alone_s_, measured_ ? std::min(seconds, kSlowdown * alone_s_) : seconds, !measured_);
    measured_ = true;
    steps_beside_ = 0;
    return;
  }
  const double added = std::max(seconds - alone_s_, 0.0) / static_cast<double>(prefill_tokens);
  Smooth(token_s_, added, token_s_ <= 0);
  ++steps_beside_;
}

}  // namespace retro
