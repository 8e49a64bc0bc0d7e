#include "tests/scheduler_harness.h"

#include <algorithm>
#include <utility>

namespace retro {

std::vector<absl::StatusOr<StepOutput>> WatchedRunner::Step(std::span<const StepItem> items) {
  for (const StepItem& item : items) live_.insert(item.sequence);
  return runner_.Step(items);
}

void WatchedRunner::End(uint64_t sequence) {
  live_.erase(sequence);
  runner_.End(sequence);
}

void SchedulerHarness::Turn() {
  now_ += std::chrono::milliseconds(1);
  Perform(scheduler_.Settle(now_));
  const std::vector<StepItem> items = scheduler_.Plan();
  CheckBounds(items);
  if (items.empty()) return;
  std::vector<absl::StatusOr<StepOutput>> outputs = runner_.Step(items);
  const Clock::time_point begun = now_;
  now_ += step_time_ + last_tokens_ * token_time_;
  scheduler_.Apply(std::move(outputs), now_);
  scheduler_.NoteTime(now_ - begun);
  Perform(scheduler_.Settle(now_));
}

void SchedulerHarness::Answer(size_t which, bool failures) {
  const LookupRequest request = std::move(lookups_[which]);
  lookups_.erase(lookups_.begin() + static_cast<ptrdiff_t>(which));
  bool fails = false;
  for (const ChunkQuery& query : request.chunks) fails = fails || (failures && MadeUpFailure(query.tokens));
  scheduler_.OnNeighbours(request.lookup,
                          fails ? absl::StatusOr<LookupAnswer>(absl::UnavailableError("made up"))
                                : absl::StatusOr<LookupAnswer>(MadeUpAnswer(request)),
                          now_);
}

void SchedulerHarness::Perform(SchedulerEffects effects) {
  if (!effects.lookups.empty()) handed_out_.push_back(effects.lookups.size());
  for (LookupRequest& lookup : effects.lookups) lookups_.push_back(std::move(lookup));
  for (const uint64_t lookup : effects.cancelled_lookups) cancelled_lookups_.push_back(lookup);
  for (const uint64_t session : effects.ended) runner_.End(session);
}

void SchedulerHarness::CheckBounds(const std::vector<StepItem>& items) {
  EXPECT_LE(scheduler_.running(), limits_.sessions_max);
  EXPECT_LE(scheduler_.waiting(), limits_.waiting_max + limits_.sessions_max);
  EXPECT_LE(scheduler_.cache_blocks(), limits_.cache_blocks_max);
  EXPECT_LE(static_cast<int64_t>(runner_.live().size()), limits_.sessions_max);
  int64_t tokens = 0;
  int64_t largest_chunk = 0;
  std::set<uint64_t> sequences;
  last_rows_ = 0;
  for (const StepItem& item : items) {
    tokens += static_cast<int64_t>(item.tokens.size());
    EXPECT_TRUE(sequences.insert(item.sequence).second);
    for (const ChunkNeighbours& chunk : item.neighbours) {
      last_rows_ += chunk.count;
      largest_chunk = std::max(largest_chunk, chunk.count);
    }
  }
  EXPECT_LE(tokens, limits_.prefill_tokens_max + limits_.sessions_max);
  EXPECT_LE(last_rows_, std::max(limits_.encoder_rows_max, largest_chunk));
  last_items_ = items.size();
  last_tokens_ = tokens;
}

}  // namespace retro
