// The scheduler by itself, under a clock that the test moves: seeded random arrivals, cancels, slow and failing
// look-ups must give every session the tokens that it gets alone, leak nothing and keep every bound.
#include "generator_service/engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "generator_service/engine/model_runner.h"
#include "tests/fake_neighbours.h"

namespace retro {
namespace {

using std::chrono::milliseconds;

constexpr SchedulerLimits kTightLimits = {.sessions_max = 3,
                                          .waiting_max = 2,
                                          .cache_blocks_max = 20,
                                          .prefill_tokens_max = 7,
                                          .prefill_tokens_shared_max = 3,
                                          .stall_ms_max = milliseconds(1000)};

// The model's runner, watched: which sequences have caches.
class WatchedRunner : public StepRunner {
 public:
  explicit WatchedRunner(const RetroModel& model) : runner_(model) {}
  std::vector<absl::StatusOr<StepOutput>> Step(std::span<const StepItem> items) override {
    for (const StepItem& item : items) live_.insert(item.sequence);
    return runner_.Step(items);
  }
  void End(uint64_t sequence) override {
    live_.erase(sequence);
    runner_.End(sequence);
  }
  const std::set<uint64_t>& live() const { return live_; }

 private:
  ModelRunner runner_;
  std::set<uint64_t> live_;
};

struct PreparedRequest {
  GenerationRequest request;
  std::vector<TokenId> alone;
};

// The scheduler with everything around it that an engine would be, one turn at a time.
class Harness {
 public:
  Harness(const RetroModel& model, const Tokenizer& tokenizer, const SchedulerLimits& limits = kTightLimits)
      : limits_(limits), runner_(model), scheduler_(TinyFacts(model, tokenizer), limits) {}

  void Turn() {
    now_ += milliseconds(1);
    Perform(scheduler_.Settle(now_));
    const std::vector<StepItem> items = scheduler_.Plan();
    CheckBounds(items);
    if (items.empty()) return;
    scheduler_.Apply(runner_.Step(items), now_);
    Perform(scheduler_.Settle(now_));
  }

  void Answer(size_t which, bool failures) {
    const LookupRequest request = std::move(lookups_[which]);
    lookups_.erase(lookups_.begin() + static_cast<ptrdiff_t>(which));
    bool fails = false;
    for (const ChunkQuery& query : request.chunks) fails = fails || (failures && MadeUpFailure(query.tokens));
    scheduler_.OnNeighbours(request.lookup,
                            fails ? absl::StatusOr<LookupAnswer>(absl::UnavailableError("made up"))
                                  : absl::StatusOr<LookupAnswer>(MadeUpAnswer(request)),
                            now_);
  }

  Scheduler& scheduler() { return scheduler_; }
  const WatchedRunner& runner() const { return runner_; }
  std::vector<LookupRequest>& lookups() { return lookups_; }
  std::vector<uint64_t>& cancelled_lookups() { return cancelled_lookups_; }
  size_t last_items() const { return last_items_; }
  Clock::time_point& now() { return now_; }

 private:
  void Perform(SchedulerEffects effects) {
    for (LookupRequest& lookup : effects.lookups) lookups_.push_back(std::move(lookup));
    for (const uint64_t lookup : effects.cancelled_lookups) cancelled_lookups_.push_back(lookup);
    for (const uint64_t session : effects.ended) runner_.End(session);
  }

  void CheckBounds(const std::vector<StepItem>& items) {
    EXPECT_LE(scheduler_.running(), limits_.sessions_max);
    EXPECT_LE(scheduler_.cache_blocks(), limits_.cache_blocks_max);
    EXPECT_LE(static_cast<int64_t>(runner_.live().size()), limits_.sessions_max);
    int64_t tokens = 0;
    std::set<uint64_t> sequences;
    for (const StepItem& item : items) {
      tokens += static_cast<int64_t>(item.tokens.size());
      EXPECT_TRUE(sequences.insert(item.sequence).second);
    }
    EXPECT_LE(tokens, limits_.prefill_tokens_max + limits_.sessions_max);
    last_items_ = items.size();
  }

  const SchedulerLimits limits_;
  WatchedRunner runner_;
  Scheduler scheduler_;
  Clock::time_point now_{std::chrono::hours(1)};
  std::vector<LookupRequest> lookups_;
  std::vector<uint64_t> cancelled_lookups_;
  size_t last_items_ = 0;
};

class SchedulerTest : public testing::Test {
 protected:
  GenerationRequest Request(std::string_view prompt, int64_t max_tokens, bool retrieval = true) {
    GenerationRequest request;
    request.prompt = Ids(prompt);
    request.max_tokens = max_tokens;
    request.sampling.temperature = 0;
    request.retrieval.enabled = retrieval;
    request.retrieval.offset = static_cast<int64_t>(prompt.size()) % 8;
    request.retrieval.on_failure = FailurePolicy::kGoOnWithout;
    return request;
  }

  PreparedRequest RandomRequest(std::mt19937& random) {
    std::string prompt;
    for (size_t i = 0, length = 1 + random() % 24; i < length; ++i) prompt.push_back(static_cast<char>(random() % 256));
    PreparedRequest prepared{Request(prompt, static_cast<int64_t>(1 + random() % 20), random() % 5 != 0), {}};
    prepared.request.retrieval.offset = static_cast<int64_t>(random() % 8);
    prepared.request.sampling.temperature = random() % 2 == 0 ? 0.0F : 0.8F;
    prepared.request.sampling.repetition_penalty = random() % 3 == 0 ? 1.3F : 1.0F;
    prepared.request.sampling.seed = random();
    prepared.request.attribution = random() % 2 == 0;
    if (random() % 3 == 0) prepared.request.echo_from = 0;
    prepared.alone = GenerateAlone(*model_, tokenizer_, prepared.request, /*failures=*/true);
    return prepared;
  }

  void RunSchedule(const std::vector<PreparedRequest>& prepared, uint32_t seed);

  const ByteTokenizer tokenizer_;
  const std::unique_ptr<RetroModel> model_ = MakeTinyModel();
};

void SchedulerTest::RunSchedule(const std::vector<PreparedRequest>& prepared, uint32_t seed) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  Harness harness(*model_, tokenizer_);
  struct Running {
    const PreparedRequest* prepared;
    std::shared_ptr<RecordingSink> sink;
    bool cancelled;
  };
  std::map<uint64_t, Running> sessions;
  uint64_t next_id = 1;
  const size_t arrivals = 4 + random() % 6;
  for (int turn = 0; turn < 3000; ++turn) {
    if (sessions.size() < arrivals && random() % 4 == 0) {
      const PreparedRequest& one = prepared[random() % prepared.size()];
      auto sink = std::make_shared<RecordingSink>();
      GenerationRequest request = one.request;
      request.arrival = harness.now();
      request.retrieval.timeout_ms = milliseconds(100'000);
      if (harness.scheduler().Add(next_id, std::move(request), sink).ok()) sessions[next_id++] = {&one, sink, false};
    }
    if (next_id > 1 && random() % 25 == 0) {
      const uint64_t victim = 1 + random() % (next_id - 1);
      sessions[victim].cancelled |= !sessions[victim].sink->ended();
      harness.scheduler().Cancel(victim, absl::CancelledError("by the test"));
    }
    for (auto& [id, running] : sessions) running.sink->SetRoom(random() % 6 != 0);
    if (!harness.lookups().empty() && random() % 3 == 0) harness.Answer(random() % harness.lookups().size(), true);
    harness.Turn();
    if (sessions.size() == arrivals && harness.scheduler().running() + harness.scheduler().waiting() == 0) break;
  }
  EXPECT_EQ(harness.scheduler().running(), 0);
  EXPECT_EQ(harness.scheduler().waiting(), 0);
  EXPECT_EQ(harness.scheduler().cache_blocks(), 0);
  EXPECT_TRUE(harness.runner().live().empty());
  for (const auto& [id, running] : sessions) {
    ASSERT_TRUE(running.sink->ended());
    const std::vector<TokenId> got = running.sink->Generated();
    if (running.sink->finish().has_value()) {
      EXPECT_EQ(got, running.prepared->alone) << "session " << id;
    } else {
      EXPECT_TRUE(running.cancelled) << running.sink->error();
      ASSERT_LE(got.size(), running.prepared->alone.size());
      EXPECT_TRUE(std::equal(got.begin(), got.end(), running.prepared->alone.begin())) << "session " << id;
    }
  }
}

TEST_F(SchedulerTest, AnyScheduleGivesTheTokensThatEachSessionGetsAlone) {
  std::mt19937 random(4711);
  constexpr int kRequests = 24;
  std::vector<PreparedRequest> prepared;
  prepared.reserve(kRequests);
  for (int i = 0; i < kRequests; ++i) prepared.push_back(RandomRequest(random));
  for (uint32_t seed = 1; seed <= 25 && !HasFailure(); ++seed) RunSchedule(prepared, seed);
}

TEST_F(SchedulerTest, AWaitingSessionHoldsUpNobody) {
  Harness harness(*model_, tokenizer_);
  auto waits = std::make_shared<RecordingSink>();
  auto runs = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.scheduler().Add(1, Request("neighbours please", 5), waits).ok());
  ASSERT_TRUE(harness.scheduler().Add(2, Request("none", 5, /*retrieval=*/false), runs).ok());
  for (int turn = 0; turn < 20; ++turn) harness.Turn();
  EXPECT_TRUE(runs->finish().has_value());
  EXPECT_FALSE(waits->ended());
  EXPECT_TRUE(waits->Generated().empty());
  ASSERT_EQ(harness.lookups().size(), 1U);
  harness.Answer(0, false);
  for (int turn = 0; turn < 20; ++turn) harness.Turn();
  EXPECT_EQ(waits->Generated().size(), 5U);
  EXPECT_GE(waits->finish()->retrieval_time, milliseconds(10));
}

TEST_F(SchedulerTest, RunningSessionsKeepTheirPaceBesideALongPrompt) {
  Harness harness(*model_, tokenizer_);
  auto quick = std::make_shared<RecordingSink>();
  auto slow = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.scheduler().Add(1, Request("a", 20, false), quick).ok());
  harness.Turn();
  ASSERT_TRUE(harness.scheduler().Add(2, Request(std::string(60, 'x'), 1, false), slow).ok());
  for (int turn = 0; turn < 10; ++turn) {
    const size_t before = quick->Generated().size();
    harness.Turn();
    EXPECT_EQ(quick->Generated().size(), before + 1);
    EXPECT_TRUE(slow->Generated().empty());  // 3 tokens of prefill a turn
  }
}

TEST_F(SchedulerTest, ACancelledSessionsPlaceIsFreeBeforeTheNextStep) {
  Harness harness(*model_, tokenizer_, {.sessions_max = 1, .waiting_max = 1});
  auto first = std::make_shared<RecordingSink>();
  auto second = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.scheduler().Add(1, Request("first", 50), first).ok());
  ASSERT_TRUE(harness.scheduler().Add(2, Request("second", 2, false), second).ok());
  harness.Turn();
  EXPECT_EQ(harness.scheduler().waiting(), 1);
  ASSERT_EQ(harness.lookups().size(), 1U);
  harness.scheduler().Cancel(1, absl::CancelledError("by the test"));
  EXPECT_EQ(first->error().code(), absl::StatusCode::kCancelled);
  harness.Turn();
  EXPECT_EQ(harness.runner().live(), std::set<uint64_t>{2});
  EXPECT_EQ(harness.cancelled_lookups(), std::vector<uint64_t>{harness.lookups()[0].lookup});
  harness.Answer(0, false);  // too late: must do nothing
}

TEST_F(SchedulerTest, AnExpiredSessionEnds) {
  Harness harness(*model_, tokenizer_);
  GenerationRequest request = Request("late", 50);
  request.deadline = harness.now() + milliseconds(5);
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.scheduler().Add(1, std::move(request), sink).ok());
  harness.Turn();
  EXPECT_EQ(harness.scheduler().NextDeadline(), std::optional(harness.now() + milliseconds(4)));
  harness.now() += milliseconds(10);
  harness.Turn();
  EXPECT_EQ(sink->error().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(harness.scheduler().running(), 0);
}

TEST_F(SchedulerTest, PastTheBoundsASessionIsRefused) {
  Harness harness(*model_, tokenizer_, {.sessions_max = 1, .waiting_max = 1, .cache_blocks_max = 8});
  const auto sink = std::make_shared<RecordingSink>();
  const absl::Status large = harness.scheduler().Add(1, Request("x", 64), sink);  // 65 tokens: nine chunks of 8
  EXPECT_EQ(large.code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(harness.scheduler().Add(2, Request("x", 63), sink).ok());
  harness.Turn();
  ASSERT_TRUE(harness.scheduler().Add(3, Request("x", 1), sink).ok());
  EXPECT_EQ(harness.scheduler().Add(4, Request("x", 1), sink).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(SchedulerTest, ALookupWithoutAnAnswerEndsByItself) {
  for (const FailurePolicy policy : {FailurePolicy::kGoOnWithout, FailurePolicy::kFail}) {
    Harness harness(*model_, tokenizer_);
    GenerationRequest request = Request("eight by", 3);
    request.retrieval.timeout_ms = milliseconds(40);
    request.retrieval.on_failure = policy;
    auto sink = std::make_shared<RecordingSink>();
    ASSERT_TRUE(harness.scheduler().Add(1, std::move(request), sink).ok());
    harness.Turn();
    harness.now() += milliseconds(1000);
    for (int turn = 0; turn < 8; ++turn) harness.Turn();
    EXPECT_EQ(harness.cancelled_lookups().size(), 1U);
    if (policy == FailurePolicy::kFail) {
      EXPECT_EQ(sink->error().code(), absl::StatusCode::kUnavailable);
    } else {
      ASSERT_EQ(sink->chunks().size(), 1U);
      EXPECT_EQ(sink->chunks()[0].found.degradation, Degradation::kTimedOut);
      EXPECT_EQ(sink->Generated().size(), 3U);
    }
  }
}

TEST_F(SchedulerTest, AReaderThatIsBehindPausesItsOwnSessionAlone) {
  Harness harness(*model_, tokenizer_);
  auto behind = std::make_shared<RecordingSink>();
  auto reads = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.scheduler().Add(1, Request("a", 10, false), behind).ok());
  ASSERT_TRUE(harness.scheduler().Add(2, Request("b", 10, false), reads).ok());
  behind->SetRoom(false);
  for (int turn = 0; turn < 15; ++turn) harness.Turn();
  EXPECT_TRUE(behind->Generated().empty());
  EXPECT_TRUE(reads->ended());
  behind->SetRoom(true);
  for (int turn = 0; turn < 5; ++turn) harness.Turn();
  EXPECT_EQ(behind->Generated().size(), 5U);
  behind->SetRoom(false);
  harness.Turn();
  harness.now() += milliseconds(1001);
  harness.Turn();
  EXPECT_EQ(behind->error().code(), absl::StatusCode::kCancelled);
}

TEST_F(SchedulerTest, ADrainTellsWhatIsNeededToGoOn) {
  Harness harness(*model_, tokenizer_);
  const GenerationRequest request = Request("resume me", 20, false);
  const std::vector<TokenId> alone = GenerateAlone(*model_, tokenizer_, request);
  auto cut = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.scheduler().Add(1, request, cut).ok());
  for (int turn = 0; turn < 8; ++turn) harness.Turn();
  harness.scheduler().Drain(harness.now());
  ASSERT_TRUE(cut->finish().has_value());
  EXPECT_EQ(cut->finish()->cause, FinishCause::kDrained);
  std::vector<TokenId> all = cut->Generated();
  ASSERT_GT(all.size(), 2U);
  ASSERT_LT(all.size(), 20U);

  GenerationRequest rest = request;
  rest.prompt = cut->finish()->tokens;
  rest.max_tokens = 20 - static_cast<int64_t>(all.size());
  auto resumed = std::make_shared<RecordingSink>();
  harness.Turn();
  ASSERT_TRUE(harness.scheduler().Add(2, rest, resumed).ok());
  for (int turn = 0; turn < 40; ++turn) harness.Turn();
  for (const TokenId id : resumed->Generated()) all.push_back(id);
  EXPECT_EQ(all, alone);
}

}  // namespace
}  // namespace retro
