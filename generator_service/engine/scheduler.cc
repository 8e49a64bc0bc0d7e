#include "generator_service/engine/scheduler.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "common/base/error.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr std::chrono::milliseconds kRetryAfter{1000};
// A source tells better than we why it has no answer, so it gets a little longer than its deadline.
constexpr std::chrono::milliseconds kLookupGrace{250};
// Else a few readers that never read would keep everybody from a place for as long as they may.
constexpr int kStallShareIfOthersWait = 10;
constexpr int kStepTimeSmoothing = 8;  // steps
constexpr int kStepTimeRise = 2;       // at most, in one: that something held up counts for no more
// A caller whose time is over resets its call, often before we look at the clock. Its time is a little longer here than
// with it: gRPC rounds it up on its way, by up to a hundredth.
constexpr std::chrono::milliseconds kDeadlineMargin{20};
constexpr int kDeadlineMarginShare = 100;

// The next tokens of a prompt that there is room for, where each that is scored counts as `row_tokens`; the last of
// them may go beyond it, so that any room is enough for one.
int64_t TokensThatFit(const Session& session, int64_t room, int64_t row_tokens) {
  const int64_t tokens = std::min(session.Runnable(), room);
  if (tokens <= 0) return 0;
  const int64_t plain = tokens - session.ScoredRows(tokens);
  return std::min(tokens, plain + (room - plain + row_tokens - 1) / row_tokens);
}

}  // namespace

absl::Status StalledError(std::chrono::milliseconds stall_ms_max) {
  return Error(absl::StatusCode::kCancelled, Reason::kCallerGone,
               StrCat("nobody has read this stream for ", stall_ms_max.count(), " ms"));
}

absl::Status CallerLeftError(Clock::time_point arrival, Clock::time_point deadline, Clock::time_point now) {
  const Clock::duration margin = kDeadlineMargin + (deadline - arrival) / kDeadlineMarginShare;
  return CallerGoneError(/*deadline_passed=*/now >= deadline - margin);
}

int64_t Scheduler::CacheBlocks(const Session& session) const {
  const int64_t m = facts_.chunk_length;
  return (session.cached_tokens_max() + session.neighbour_tokens_max() + m - 1) / m;
}

absl::Status Scheduler::Add(uint64_t id, GenerationRequest request, std::shared_ptr<EventSink> sink,
                            Clock::time_point now) {
  if (waiting() >= limits_.waiting_max + std::max<int64_t>(limits_.sessions_max - running(), 0))
    return QueueFullError("the queue of generations", kRetryAfter);
  auto session = std::make_unique<Session>(id, std::move(request), std::move(sink), facts_);
  if (CacheBlocks(*session) > limits_.cache_blocks_max) {
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kContextTooLong,
        StrCat("prompt, max_tokens and ", session->request().retrieval.neighbours_max, " neighbours a chunk take ",
               CacheBlocks(*session), " cache blocks of ", facts_.chunk_length, " tokens, this server has ",
               limits_.cache_blocks_max, " (--cache-mib): ask for fewer tokens or neighbours"));
  }
  const std::string& key = session->request().key;
  keys_.Note(key, now);
  if (turns_.try_emplace(key, next_turn_).second) ++next_turn_;
  line_moves_ = true;
  waiting_.push_back({std::move(session), std::nullopt});
  return absl::OkStatus();
}

void Scheduler::Cancel(uint64_t id, Clock::time_point now) {
  const auto cancel = [&](Entry& entry) {
    Session& session = *entry.session;
    if (session.id() != id) return;
    session.Fail(CallerLeftError(session.request().arrival, session.request().deadline, now), now);
  };
  std::ranges::for_each(waiting_, cancel);
  std::ranges::for_each(running_, cancel);
}

void Scheduler::Drain(Clock::time_point now) {
  for (Entry& entry : waiting_) entry.session->Drain(now);
  for (Entry& entry : running_) entry.session->Drain(now);
}

void Scheduler::OnNeighbours(uint64_t lookup, absl::StatusOr<LookupAnswer> answer, Clock::time_point now) {
  for (Entry& entry : running_) {
    if (entry.session->pending_lookup() != lookup || entry.session->state() == SessionState::kFinished) continue;
    return entry.session->OnNeighbours(std::move(answer), now);
  }
}

SchedulerEffects Scheduler::Settle(Clock::time_point now) {
  SchedulerEffects effects;
  EndLate(now);
  Sweep(effects);
  GivePlaces(now);  // before anybody is judged for keeping others waiting, who wait then indeed
  for (Entry& entry : waiting_) Expire(entry, now, effects);
  for (Entry& entry : running_) Expire(entry, now, effects);
  Sweep(effects);
  do {
    GivePlaces(now);
    for (Entry& entry : running_) {
      if (auto lookup = entry.session->NextLookup(next_lookup_, now)) {
        ++next_lookup_;
        effects.lookups.push_back(*std::move(lookup));
      }
    }
    Sweep(effects);  // a session may be complete as soon as it has its place, which is the next one's then
  } while (line_moves_);
  return effects;
}

std::chrono::milliseconds Scheduler::StallMax(const Entry& entry) const {
  const bool is_wanted = places_are_wanted_ || at_their_share_.contains(entry.session->request().key);
  return is_wanted ? limits_.stall_ms_max / kStallShareIfOthersWait : limits_.stall_ms_max;
}

void Scheduler::EndLate(Clock::time_point now) {
  const auto end = [now](Entry& entry) {
    Session& session = *entry.session;
    const bool is_late = session.state() != SessionState::kFinished && now >= session.request().deadline;
    if (is_late) session.Fail(CallerGoneError(/*deadline_passed=*/true), now);
  };
  std::ranges::for_each(waiting_, end);
  std::ranges::for_each(running_, end);
}

void Scheduler::Expire(Entry& entry, Clock::time_point now, SchedulerEffects& effects) const {
  Session& session = *entry.session;
  if (session.state() == SessionState::kFinished) return;
  if (session.sink().HasRoom()) {
    entry.stalled_since.reset();
  } else if (!entry.stalled_since.has_value()) {
    entry.stalled_since = now;
  } else if (now >= *entry.stalled_since + StallMax(entry)) {
    return session.Fail(StalledError(StallMax(entry)), now);
  }
  if (session.pending_lookup().has_value() && now >= session.lookup_deadline() + kLookupGrace) {
    effects.cancelled_lookups.push_back(*session.pending_lookup());
    session.OnNeighbours(absl::DeadlineExceededError("the look-up was not answered in time"), now);
  }
}

void Scheduler::Sweep(SchedulerEffects& effects) {
  const auto gone = [&effects](const Entry& entry) {
    if (entry.session->state() != SessionState::kFinished) return false;
    if (entry.session->pending_lookup().has_value()) {
      effects.cancelled_lookups.push_back(*entry.session->pending_lookup());
    }
    effects.ended.push_back(entry.session->id());
    return true;
  };
  const size_t left = std::erase_if(waiting_, gone);
  const size_t ended = std::erase_if(running_, [&](const Entry& entry) {
    if (!gone(entry)) return false;
    const std::string& key = entry.session->request().key;
    places_.Release(key);
    blocks_.Release(key, CacheBlocks(*entry.session));
    return true;
  });
  if (left + ended == 0) return;
  line_moves_ = true;
  std::set<std::string_view> keys;
  for (const Entry& entry : waiting_) keys.insert(entry.session->request().key);
  for (const Entry& entry : running_) keys.insert(entry.session->request().key);
  std::erase_if(turns_, [&keys](const auto& turn) { return !keys.contains(turn.first); });
}

// Those who wait, in the order in which they are to have places.
std::vector<Scheduler::InLine> Scheduler::Line() {
  std::map<std::string_view, int64_t> places;
  for (const Entry& entry : running_) ++places[entry.session->request().key];
  std::vector<InLine> line;
  line.reserve(waiting_.size());
  for (auto entry = waiting_.begin(); entry != waiting_.end(); ++entry) {
    const std::string& key = entry->session->request().key;
    line.push_back({{entry->room_by, places[key], turns_.at(key)}, entry});
  }
  std::ranges::stable_sort(line, {}, &InLine::rank);
  return line;
}

// The step by which those who run leave room for so many blocks, if each of them has a token in every step, and prompts
// are computed one after the other.
uint64_t Scheduler::RoomBy(int64_t blocks) const {
  const int64_t prefill_tokens = decoding_ ? pace_.TokensMeanwhile() : limits_.prefill_tokens_max;
  std::vector<std::pair<int64_t, int64_t>> ends;  // steps left, and blocks
  ends.reserve(running_.size());
  int64_t of_prompts = 0;
  for (const Entry& entry : running_) {
    const int64_t of_prompt = entry.session->prompt_left();
    of_prompts += of_prompt;
    const int64_t steps = of_prompt == 0 ? 0 : (of_prompts + prefill_tokens - 1) / prefill_tokens;
    ends.emplace_back(steps + entry.session->tokens_left_max() - of_prompt, CacheBlocks(*entry.session));
  }
  std::ranges::sort(ends);
  int64_t room = blocks_.free();
  uint64_t step = steps_;
  for (const auto& [steps, freed] : ends) {
    if (room >= blocks) break;
    room += freed;
    step = steps_ + static_cast<uint64_t>(steps);
  }
  return step;
}

// Gives one to the first who may have it; false if there is nobody. The first that finds no room is promised it, and so
// is first in line from now on: whoever passes it should have ended by the step by which it should have it, which never
// becomes a later one (but is found anew when a second key comes), or come while that is late and lets them (see
// Patience).
bool Scheduler::GivePlace(Clock::time_point now) {
  places_are_wanted_ = !waiting_.empty() && running() >= limits_.sessions_max;
  at_their_share_.clear();
  if (waiting_.empty() || places_are_wanted_) return false;
  bool is_promised = false;      // room, to somebody
  uint64_t end_by = kNever;      // whoever is to pass that one
  std::set<std::string> behind;  // of several keys, those whose first waits: else short ones might pass it for ever
  for (const auto& [rank, next] : Line()) {
    const Session& session = *next->session;
    const std::string& key = session.request().key;
    if (at_their_share_.contains(key) || behind.contains(key)) continue;
    const int64_t blocks = CacheBlocks(session);
    const bool is_promised_room = next->room_by != kNever;
    if (several_keys_ && !is_promised_room && (!places_.HasRoom(key) || !blocks_.MightHaveRoom(key, blocks))) {
      at_their_share_.insert(key);
      continue;
    }
    const int64_t needed = several_keys_ ? blocks_.FreeNeeded(key, blocks) : blocks;
    if (blocks_.free() < needed) {
      places_are_wanted_ = true;
      if (!is_promised) {
        is_promised = true;
        next->room_by = std::min(next->room_by, RoomBy(needed));
        patience_.Look(steps_, next->room_by, step_time_, now);
        if (!patience_.lets_pass()) end_by = next->room_by;
      } else if (several_keys_) {
        behind.insert(key);
      }
      continue;
    }
    if (steps_ + static_cast<uint64_t>(session.tokens_left_max()) > end_by) {
      if (several_keys_) behind.insert(key);
      continue;
    }
    if (is_promised_room && !is_promised) patience_.Rest();
    places_.Take(key);
    blocks_.Take(key, blocks);
    turns_[key] = next_turn_++;
    running_.push_back(std::move(*next));
    waiting_.erase(next);
    running_.back().session->Admit(now);
    return true;
  }
  return false;
}

void Scheduler::GivePlaces(Clock::time_point now) {
  const bool several_keys = keys_.lately(now);
  if (!line_moves_ && several_keys == several_keys_ && now < patience_.look_again()) return;
  if (several_keys && !several_keys_) {
    for (Entry& entry : waiting_) entry.room_by = kNever;  // a key that was alone was promised more than its share
  }
  several_keys_ = several_keys;
  while (GivePlace(now)) {
  }
  if (std::ranges::none_of(waiting_, [](const Entry& entry) { return entry.room_by != kNever; })) patience_.Rest();
  line_moves_ = false;
}

void Scheduler::KeepPrefillFair(const std::vector<Entry*>& entries) {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const auto& [key, tokens] : prefilled_) least = std::min(least, tokens);
  std::map<std::string, int64_t> prefilled;
  for (const Entry* entry : entries) {
    if (entry->session->state() != SessionState::kPrefill) continue;
    const std::string& key = entry->session->request().key;
    const auto known = prefilled_.find(key);
    prefilled[key] = known != prefilled_.end() ? known->second : prefilled_.empty() ? 0 : least;
  }
  prefilled_ = std::move(prefilled);
}

// Who can take part in the next step: those that were passed over first, longest ago first; then the prompts of keys
// that have had the least of theirs computed.
std::vector<Scheduler::Entry*> Scheduler::InTurn() {
  std::vector<Entry*> entries;
  for (Entry& entry : running_) {
    if (entry.session->Runnable() > 0 && entry.session->sink().HasRoom()) entries.push_back(&entry);
  }
  KeepPrefillFair(entries);
  std::ranges::stable_sort(entries, {}, [this](const Entry* entry) {
    const auto prefilled = prefilled_.find(entry->session->request().key);
    return std::pair(entry->passed_over_since, prefilled == prefilled_.end() ? 0 : prefilled->second);
  });
  return entries;
}

std::vector<StepItem> Scheduler::Plan() {
  plan_.clear();
  ++steps_;
  const std::vector<Entry*> entries = InTurn();
  const auto decodes = [](const Entry* entry) { return entry->session->state() == SessionState::kDecode; };
  decoding_ = std::ranges::any_of(entries, decodes);
  const bool paused = std::ranges::any_of(running_, [](const Entry& entry) { return entry.session->paused(); });
  const int64_t prefill_max = decoding_ ? pace_.Tokens()
                              : paused  ? pace_.TokensMeanwhile()
                                        : limits_.prefill_tokens_max;
  const int64_t row_tokens = decoding_ || paused ? limits_.scored_row_tokens : 1;
  prefilling_ = 0;
  encoding_ = 0;
  for (Entry* entry : entries) {
    Session& session = *entry->session;
    const bool prefills = !decodes(entry);
    int64_t tokens = prefills ? TokensThatFit(session, prefill_max - prefilling_, row_tokens) : 1;
    if (tokens == 0) continue;
    // A chunk that has more neighbours than a step may encode is the only one of its step.
    const int64_t room = std::max<int64_t>(limits_.encoder_rows_max - encoding_, 0);
    const int64_t fitting = session.TokensWithinRows(tokens, room);
    tokens = fitting == 0 && encoding_ == 0 ? 1 : fitting;
    entry->passed_over_since = tokens == 0 ? std::min(entry->passed_over_since, steps_) : kNever;
    if (tokens == 0) continue;
    encoding_ += session.EncoderRows(tokens);
    if (prefills) {
      const int64_t counted = tokens + (row_tokens - 1) * session.ScoredRows(tokens);
      prefilling_ += counted;
      prefilled_[session.request().key] += counted;
    }
    plan_.emplace_back(&session, tokens);
  }
  if (plan_.empty()) --steps_;  // as none is made
  std::vector<StepItem> items;
  items.reserve(plan_.size());
  for (const auto& [session, tokens] : plan_) items.push_back(session->Slice(tokens));
  return items;
}

void Scheduler::Apply(std::vector<absl::StatusOr<StepOutput>> outputs, Clock::time_point now) {
  for (size_t i = 0; i < plan_.size(); ++i) {
    const auto& [session, tokens] = plan_[i];
    if (outputs[i].ok()) {
      session->OnStep(tokens, *outputs[i], sampler_, now);
    } else {
      session->Fail(outputs[i].status(), now);
    }
  }
  plan_.clear();
}

void Scheduler::NoteTime(Clock::duration time) {
  const bool is_known = step_time_ > Clock::duration::zero();
  step_time_ =
      is_known ? step_time_ + (std::min(time, kStepTimeRise * step_time_) - step_time_) / kStepTimeSmoothing : time;
  if (decoding_ && encoding_ == 0) pace_.Note(prefilling_, time);
}

std::optional<Clock::time_point> Scheduler::NextDeadline() const {
  Clock::time_point next = Clock::time_point::max();
  const auto look_at = [&](const Entry& entry) {
    next = std::min(next, entry.session->request().deadline);
    if (entry.session->pending_lookup().has_value()) {
      next = std::min(next, entry.session->lookup_deadline() + kLookupGrace);
    }
    if (entry.stalled_since.has_value()) next = std::min(next, *entry.stalled_since + StallMax(entry));
  };
  for (const Entry& entry : waiting_) look_at(entry);
  for (const Entry& entry : running_) look_at(entry);
  if (several_keys_ && !waiting_.empty()) next = std::min(next, keys_.until());  // more may be one key's then
  if (running() < limits_.sessions_max) next = std::min(next, patience_.look_again());
  if (next == Clock::time_point::max()) return std::nullopt;
  return next;
}

}  // namespace retro
