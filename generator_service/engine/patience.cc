#include "generator_service/engine/patience.h"

#include <algorithm>

namespace retro {

void Patience::Look(uint64_t step, uint64_t room_by, Clock::duration step_time, Clock::time_point now) {
  if (!held_from_.has_value()) held_from_ = {.time = now, .step = step, .steps = room_by};
  held_from_->steps = std::min(held_from_->steps, room_by - std::min(room_by, held_from_->step));
  if (!late_from_.has_value()) {
    // Looked at again and again, for what a step takes changes.
    const Clock::duration time = static_cast<int64_t>(held_from_->steps) * step_time;
    const Clock::time_point late_from = held_from_->time + kFirst + kStepTimes * time;
    look_again_ = std::min(late_from, now + kFirst);
    if (now < late_from) return;
    late_from_ = now;
  }
  look_again_ = *late_from_;
  for (Clock::duration length = kFirst; look_again_ <= now; length = std::min<Clock::duration>(2 * length, kPassMax)) {
    look_again_ += length;
    lets_pass_ = now < look_again_;
    if (!lets_pass_) look_again_ += 2 * length;
  }
}

}  // namespace retro
