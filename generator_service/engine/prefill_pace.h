// How many tokens of prompts a step may take beside sessions that decode, so that these keep their pace: a step takes
// at most kSlowdown times as long as one without any. Learnt from the steps' own times; plain logic without a clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace retro {

class PrefillPace {
 public:
  static constexpr double kSlowdown = 2.5;

  // 1 <= tokens_min <= tokens_max.
  PrefillPace(int64_t tokens_min, int64_t tokens_max) : tokens_min_(tokens_min), tokens_max_(tokens_max) {}

  // For the next step in which a session decodes, 0 or tokens_min ... tokens_max. 0 where it has to be measured again
  // what such a step takes by itself.
  int64_t Tokens() const;
  // For a step in which those who decode wait for neighbours, that may come while it runs: tokens_min ... tokens_max.
  int64_t TokensMeanwhile() const;

  // What a step took in which a session decoded, beside so many tokens of prompts. Not for steps that encoded
  // neighbours: their time is the encoder's.
  void Note(int64_t prefill_tokens, std::chrono::nanoseconds time);

 private:
  int64_t Fitting() const;

  const int64_t tokens_min_;
  const int64_t tokens_max_;
  bool measured_ = false;
  double alone_s_ = 0;        // a step without prefill, smoothed
  double token_s_ = 0;        // what a token of a prompt adds, smoothed; 0: not known
  int64_t steps_beside_ = 0;  // with prefill, since the last one without
};

}  // namespace retro
