#include "generator_service/engine/engine.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "generator_service/engine/engine_mailbox.h"

namespace retro {
namespace {

// The first error of a step all of whose items failed INTERNAL.
absl::Status FailureOf(const std::vector<absl::StatusOr<StepOutput>>& outputs) {
  const bool failed =
      std::ranges::all_of(outputs, [](const auto& output) { return absl::IsInternal(output.status()); });
  return failed ? outputs.front().status() : absl::OkStatus();
}

}  // namespace

Engine::Engine(const EngineOptions& options, std::unique_ptr<StepRunner> runner, NeighbourSource& source)
    : options_(options),
      runner_(std::move(runner)),
      source_(source),
      mailbox_(std::make_shared<EngineMailbox>(options.limits.sessions_max, options.limits.waiting_max)),
      scheduler_(options.facts, options.limits),
      thread_([this] { Loop(); }) {}

Engine::~Engine() {
  mailbox_->Stop();
  thread_.join();
}

absl::StatusOr<uint64_t> Engine::Submit(GenerationRequest request, std::shared_ptr<EventSink> sink,
                                        SessionPlace place) {
  return mailbox_->Submit(std::move(request), std::move(sink), place);
}

void Engine::Cancel(uint64_t session) { mailbox_->Cancel(session); }
void Engine::Wake() { mailbox_->Wake(); }
void Engine::Drain(Clock::time_point deadline) { mailbox_->Drain(deadline); }

void Engine::Loop() {
  while (Turn()) {
  }
}

// Reads the notes, then computes one step if there is anything to compute. False: stopped.
bool Engine::Turn() {
  EngineMailbox::Mail mail = mailbox_->Take(idle_, WakeTime());
  if (mail.drain_at.has_value()) drain_at_ = mail.drain_at;
  const Clock::time_point now = Clock::now();
  Deliver(mail, now);
  if (mail.stopping || (drain_at_.has_value() && now >= *drain_at_)) scheduler_.Drain(now);
  Perform(scheduler_.Settle(now));
  if (mail.stopping) return false;

  const std::vector<StepItem> items = scheduler_.Plan();
  idle_ = items.empty();
  if (idle_) {
    Report({});
    return true;
  }
  StepReport report{.sessions = static_cast<int64_t>(items.size())};
  for (const StepItem& item : items) {
    report.tokens += static_cast<int64_t>(item.tokens.size());
    for (const ChunkNeighbours& chunk : item.neighbours) report.neighbours += chunk.count;
  }
  if (options_.on_step_begin) options_.on_step_begin();
  std::vector<absl::StatusOr<StepOutput>> outputs = runner_->Step(items);
  report.failure = FailureOf(outputs);
  scheduler_.Apply(std::move(outputs), Clock::now());
  // Not before: to sample, and to score a prompt's tokens, is this thread's work too, and may be most of it.
  const Clock::time_point after = Clock::now();
  scheduler_.NoteTime(after - now);
  Perform(scheduler_.Settle(after));
  report.time = after - now;
  Report(report);
  return true;
}

void Engine::Deliver(EngineMailbox::Mail& mail, Clock::time_point now) {
  for (EngineMailbox::Submission& submission : mail.submissions) {
    const std::shared_ptr<EventSink> sink = submission.sink;
    const absl::Status added =
        scheduler_.Add(submission.id, std::move(submission.request), std::move(submission.sink), now);
    if (added.ok()) continue;
    sink->OnError(added);
    mailbox_->CountEnded({submission.id});
  }
  for (const uint64_t session : mail.cancels) scheduler_.Cancel(session, now);
  for (auto& [lookup, answer] : mail.answers) scheduler_.OnNeighbours(lookup, std::move(answer), now);
}

std::optional<Clock::time_point> Engine::WakeTime() const {
  const std::optional<Clock::time_point> deadline = scheduler_.NextDeadline();
  // Once draining is over there is nothing left to wake up for.
  if (!drain_at_.has_value() || scheduler_.running() + scheduler_.waiting() == 0) return deadline;
  return std::min(*drain_at_, deadline.value_or(*drain_at_));
}

void Engine::Perform(SchedulerEffects effects) {
  for (const uint64_t lookup : effects.cancelled_lookups) source_.CancelLookup(lookup);
  for (const uint64_t session : effects.ended) runner_->End(session);
  mailbox_->CountEnded(effects.ended);
  if (effects.lookups.empty()) return;
  source_.Lookup(std::move(effects.lookups),
                 [mailbox = mailbox_](uint64_t lookup, absl::StatusOr<LookupAnswer> answer) {
                   mailbox->Answer(lookup, std::move(answer));
                 });
}

void Engine::Report(StepReport step) const {
  if (!options_.on_step) return;
  step.running = scheduler_.running();
  step.waiting = scheduler_.waiting();
  step.cache_blocks = scheduler_.cache_blocks();
  options_.on_step(step);
}

}  // namespace retro
