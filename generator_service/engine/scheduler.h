// Which sessions have a place, and what the next step computes. Plain logic: no threads, no clock, no model; the engine
// drives it and the tests do so in its place.
//
// Rules: sessions of a key get places in the order they came; the next place is for the key that has the fewest, and of
// those for the one that has had none for longest, as long as the bounds on sessions and cache blocks allow. The first
// that finds no room in the cache is promised it, and lets those pass that should have ended before it has it, and from
// time to time everybody if it does not come (see Patience). Where several keys have come lately, one that has places
// leaves the last of them, and of the cache, to the others (see FairShare): a generation may last long, and who has
// none is to find one soon. Every step takes one token of each session that decodes, and a piece of prefill beside them
// that is small while somebody decodes or would but for neighbours that are on their way (see PrefillPace), so that
// running sessions keep their pace. Prompts of different keys are computed at the same pace together. A session that
// waits for neighbours, or whose reader is behind, is left out of the step and holds up nobody. One whose chunk has
// more neighbours than the step's encoder still has room for is passed over, and comes first in the next step. Whoever
// is cancelled or past the deadline has left before the next step.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/fair_share.h"
#include "generator_service/engine/patience.h"
#include "generator_service/engine/prefill_pace.h"
#include "generator_service/engine/session.h"
#include "generator_service/engine/step.h"

namespace retro {

struct SchedulerLimits {
  int64_t sessions_max = 16;  // that have a place
  int64_t waiting_max = 32;   // for one
  // Of m tokens, of all sessions with a place: each counted at its longest, with the neighbours that it attends to.
  int64_t cache_blocks_max = 512;
  int64_t prefill_tokens_max = 256;        // in a step where nobody decodes
  int64_t prefill_tokens_shared_max = 32;  // in a step where somebody does; fewer where that would be slow,
  int64_t prefill_tokens_shared_min = 1;   // but no fewer than these
  // As so many counts there a token that scores the next one of its prompt. For where the two bounds are the same, so
  // that what it takes is not learnt.
  int64_t scored_row_tokens = 1;
  int64_t encoder_rows_max = 64;  // neighbours encoded in a step; a chunk with more is encoded by itself
  // That a reader may be behind; a tenth while others wait for a place.
  std::chrono::milliseconds stall_ms_max{60'000};
};

// Of a stream that nobody has read for so long: CANCELLED.
absl::Status StalledError(std::chrono::milliseconds stall_ms_max);

// Of a call that its caller has left: CANCELLED, or DEADLINE_EXCEEDED if it had as good as no time left.
absl::Status CallerLeftError(Clock::time_point arrival, Clock::time_point deadline, Clock::time_point now);

// What the scheduler wants done outside.
struct SchedulerEffects {
  std::vector<LookupRequest> lookups;
  std::vector<uint64_t> cancelled_lookups;
  std::vector<uint64_t> ended;  // sessions that are gone; those that had a place may have caches
};

class Scheduler {
 public:
  Scheduler(const ModelFacts& facts, const SchedulerLimits& limits)
      : facts_(facts),
        limits_(limits),
        sampler_(facts.vocabulary),
        pace_(limits.prefill_tokens_shared_min, limits.prefill_tokens_shared_max),
        places_(limits.sessions_max),
        blocks_(limits.cache_blocks_max) {}

  // Takes a session in. RESOURCE_EXHAUSTED if too many wait, INVALID_ARGUMENT if it would never get a place; the
  // sink is then not called. `id` is new.
  absl::Status Add(uint64_t id, GenerationRequest request, std::shared_ptr<EventSink> sink, Clock::time_point now);
  // Ends a session whose caller has left. Unknown ones are ignored.
  void Cancel(uint64_t id, Clock::time_point now);
  // Ends every session, with what it needs to go on elsewhere.
  void Drain(Clock::time_point now);
  // Answers that nobody waits for any more are ignored.
  void OnNeighbours(uint64_t lookup, absl::StatusOr<LookupAnswer> answer, Clock::time_point now);

  // Ends what is past its time, clears what has ended, gives out places, and says what is to be done. Call before Plan
  // and after every change.
  SchedulerEffects Settle(Clock::time_point now);

  // The next step, empty if nothing can run; valid until the next call of anything else. Apply must follow.
  std::vector<StepItem> Plan();
  // The outputs of the plan, whose computing has ended `now`.
  void Apply(std::vector<absl::StatusOr<StepOutput>> outputs, Clock::time_point now);
  // What the step took in all, with what Apply did; after that, before the next plan.
  void NoteTime(Clock::duration time);

  // When Settle has to be called again though nothing happens.
  std::optional<Clock::time_point> NextDeadline() const;

  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t cache_blocks() const { return blocks_.taken(); }

 private:
  struct Entry {
    std::unique_ptr<Session> session;
    std::optional<Clock::time_point> stalled_since;
    uint64_t passed_over_since = kNever;  // the first of the steps that the encoder had no room for it
    uint64_t room_by = kNever;  // of one that is promised room in the cache: the step by which it should be there
  };
  struct InLine {
    std::tuple<uint64_t, int64_t, uint64_t> rank;  // the promise, its key's places, its key's turn
    std::deque<Entry>::iterator entry;
  };
  static constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

  std::vector<Entry*> InTurn();
  void KeepPrefillFair(const std::vector<Entry*>& entries);
  int64_t CacheBlocks(const Session& session) const;
  // How long a reader may be behind as things are.
  std::chrono::milliseconds StallMax(const Entry& entry) const;
  void EndLate(Clock::time_point now);
  void Expire(Entry& entry, Clock::time_point now, SchedulerEffects& effects) const;
  void Sweep(SchedulerEffects& effects);
  std::vector<InLine> Line();
  uint64_t RoomBy(int64_t blocks) const;
  bool GivePlace(Clock::time_point now);
  void GivePlaces(Clock::time_point now);

  const ModelFacts facts_;
  const SchedulerLimits limits_;
  Sampler sampler_;
  PrefillPace pace_;
  // Tokens of prompts computed, by key, of the keys that have any left; who joins them begins where the least of them
  // is.
  std::map<std::string, int64_t> prefilled_;
  std::deque<Entry> waiting_;
  std::vector<Entry> running_;  // in the order they got their place
  FairShare places_;            // of running_
  FairShare blocks_;
  SeveralKeys keys_;
  bool several_keys_ = false;  // have come lately, when places were given last
  // Of each key that waits or runs: when it last got a place, or came; those whose turn it is are the least.
  std::map<std::string, uint64_t> turns_;
  uint64_t next_turn_ = 0;
  bool places_are_wanted_ = false;        // by somebody who waits, and might have one if somebody who runs went
  std::set<std::string> at_their_share_;  // keys of which somebody waits, and might have one if another of them went
  // Somebody came or went since places were given: before that nobody gets one who had none, and looking costs a step
  // its time where hundreds wait. But then who is promised room may let others pass.
  bool line_moves_ = false;
  Patience patience_;
  std::vector<std::pair<Session*, int64_t>> plan_;  // session and tokens of each item
  // Of the plan.
  bool decoding_ = false;
  int64_t prefilling_ = 0;  // tokens, those that are scored as often as they count
  int64_t encoding_ = 0;    // neighbours

  uint64_t steps_ = 0;
  Clock::duration step_time_{};  // smoothed
  uint64_t next_lookup_ = 1;
};

}  // namespace retro
