// How long others are held up for the one that is promised room in the cache. That room may come far later than it
// should, for those that have it are slower than the steps (their readers, their look-ups, prompts beside them). From
// when it is late everybody may pass for a while, then nobody who would not end by the promised step for twice as long,
// and so on, each time longer up to a bound: others find places soon, and the room comes in the first such time in
// which all that run end. If each takes less than kHeldMax they do; under a load that never ends, longer ones can keep
// it from coming until its deadline. Plain logic without a clock.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace retro {

class Patience {
 public:
  using Clock = std::chrono::steady_clock;
  // What a step may come to take, with prompts beside it (see PrefillPace), and some more.
  static constexpr int kStepTimes = 4;
  static constexpr std::chrono::seconds kFirst{1};
  static constexpr std::chrono::seconds kPassMax{64};
  static constexpr std::chrono::seconds kHeldMax = 2 * kPassMax;

  // Before each look at who may pass, while somebody is promised room: by the step `room_by`, where `step` have been
  // made and one takes `step_time`. It may be another one than before: others are held up no longer for that.
  void Look(uint64_t step, uint64_t room_by, Clock::duration step_time, Clock::time_point now);
  // Nobody is any more, or has it.
  void Rest() { *this = Patience(); }

  // As of the last look: whether everybody may pass, and when to look again; max: not at all.
  bool lets_pass() const { return lets_pass_; }
  Clock::time_point look_again() const { return look_again_; }

 private:
  struct Start {
    Clock::time_point time;
    uint64_t step;
    uint64_t steps;  // from that one, in which somebody should have had room: the fewest
  };
  std::optional<Start> held_from_;
  std::optional<Clock::time_point> late_from_;
  bool lets_pass_ = false;
  Clock::time_point look_again_ = Clock::time_point::max();
};

}  // namespace retro
