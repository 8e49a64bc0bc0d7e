#include "generator_service/engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/scheduler_fixture.h"

namespace retro {
namespace {

using std::chrono::milliseconds;

TEST_F(SchedulerTest, PromptsOfDifferentKeysAreComputedAtThePaceOfEachOther) {
  SchedulerHarness harness(*model_, tokenizer_, {.cache_blocks_max = 128, .prefill_tokens_max = 5});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t id = 1; id <= 4; ++id) {
    GenerationRequest request = Request(std::string(60, 'x'), 1, /*retrieval=*/false);
    request.key = id == 4 ? "small" : "large";
    sinks.push_back(std::make_shared<RecordingSink>());
    ASSERT_TRUE(harness.Add(id, std::move(request), sinks.back()).ok());
    if (id == 3) harness.Turn();  // the large key's prompts were there before
  }
  int turns = 0;
  for (; !sinks[3]->ended(); ++turns) {
    ASSERT_LT(turns, 100);
    harness.Turn();
  }
  EXPECT_LE(turns, 2 * 60 / 5 + 1);  // of every two steps one is its own
  EXPECT_TRUE(sinks[0]->finish().has_value());
  EXPECT_FALSE(sinks[1]->ended());
}

TEST_F(SchedulerTest, AWaitingSessionHoldsUpNobody) {
  SchedulerHarness harness(*model_, tokenizer_);
  auto waits = std::make_shared<RecordingSink>();
  auto runs = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(1, Request("neighbours please", 5), waits).ok());
  ASSERT_TRUE(harness.Add(2, Request("none", 5, /*retrieval=*/false), runs).ok());
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
  SchedulerHarness harness(*model_, tokenizer_);
  auto quick = std::make_shared<RecordingSink>();
  auto slow = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(1, Request("a", 20, false), quick).ok());
  harness.Turn();
  ASSERT_TRUE(harness.Add(2, Request(std::string(60, 'x'), 1, false), slow).ok());
  for (int turn = 0; turn < 10; ++turn) {
    const size_t before = quick->Generated().size();
    harness.Turn();
    EXPECT_EQ(quick->Generated().size(), before + 1);
    EXPECT_TRUE(slow->Generated().empty());  // 3 tokens of prefill a turn
  }
}

// While the neighbours of a running session are on their way, a long prompt takes no more than beside a token of it:
// else the token would wait for a whole step of prefill.
TEST_F(SchedulerTest, ALongPromptsPiecesStaySmallWhileARunningSessionWaits) {
  SchedulerHarness harness(*model_, tokenizer_,
                           {.cache_blocks_max = 128, .prefill_tokens_max = 64, .prefill_tokens_shared_max = 3});
  auto running = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(1, Request("a", 40, true), running).ok());
  for (int turn = 0; turn < 60 && (running->Generated().size() < 2 || harness.lookups().empty()); ++turn) {
    harness.Turn();
    if (running->Generated().size() < 2 && !harness.lookups().empty()) harness.Answer(0, /*failures=*/false);
  }
  ASSERT_FALSE(harness.lookups().empty());  // it waits in the middle of its text
  auto prompt = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(2, Request(std::string(60, 'x'), 1, false), prompt).ok());
  for (int turn = 0; turn < 5; ++turn) {
    harness.Turn();
    EXPECT_GT(harness.last_tokens(), 0);
    EXPECT_LE(harness.last_tokens(), 3);
  }
}

TEST_F(SchedulerTest, ALongPromptsPiecesAreCutToThePaceOfWhoDecodes) {
  SchedulerHarness harness(*model_, tokenizer_, {.cache_blocks_max = 128, .prefill_tokens_shared_max = 32});
  harness.SetStepTime(milliseconds(10), milliseconds(3));  // 4 tokens of a prompt more than double a step of 13 ms
  ASSERT_TRUE(harness.Add(1, Request("a", 60, false), std::make_shared<RecordingSink>()).ok());
  harness.Turn();
  auto prompt = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(2, Request(std::string(100, 'x'), 1, false), prompt).ok());
  int64_t turns = 0;
  for (; !prompt->ended() && turns < 60; ++turns) {
    harness.Turn();
    EXPECT_LE(harness.last_tokens(), turns > 3 ? 1 + 6 : 1 + 32);
  }
  EXPECT_TRUE(prompt->finish().has_value());
  EXPECT_GE(turns, 100 / 7);
}

TEST_F(SchedulerTest, ScoredTokensOfAPromptCountAsSeveralBesideWhoDecodes) {
  SchedulerHarness harness(*model_, tokenizer_,
                           {.cache_blocks_max = 128,
                            .prefill_tokens_shared_max = 12,
                            .prefill_tokens_shared_min = 12,
                            .scored_row_tokens = 4});
  Add(harness, Plain(100));
  harness.Turn();
  GenerationRequest request = Request(std::string(60, 'x'), 1, /*retrieval=*/false);
  request.echo_from = 31;
  const auto prompt = Add(harness, request);
  std::vector<int64_t> steps;
  while (!prompt->ended() && steps.size() < 60) {
    harness.Turn();
    steps.push_back(harness.last_tokens() - 1);
  }
  // Of the third step's six that are left for scored ones two take the place.
  EXPECT_THAT(steps, testing::ElementsAre(12, 12, 6 + 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1));
}

TEST_F(SchedulerTest, ACancelledSessionsPlaceIsFreeBeforeTheNextStep) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 1, .waiting_max = 1});
  auto first = std::make_shared<RecordingSink>();
  auto second = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(1, Request("first", 50), first).ok());
  ASSERT_TRUE(harness.Add(2, Request("second", 2, false), second).ok());
  harness.Turn();
  EXPECT_EQ(harness.scheduler().waiting(), 1);
  ASSERT_EQ(harness.lookups().size(), 1U);
  harness.scheduler().Cancel(1, harness.now());
  EXPECT_EQ(first->error().code(), absl::StatusCode::kCancelled);
  harness.Turn();
  EXPECT_EQ(harness.runner().live(), std::set<uint64_t>{2});
  EXPECT_EQ(harness.cancelled_lookups(), std::vector<uint64_t>{harness.lookups()[0].lookup});
  harness.Answer(0, false);  // too late: must do nothing
}

TEST_F(SchedulerTest, WhoLeavesAsItsTimeEndsHasTimedOut) {
  SchedulerHarness harness(*model_, tokenizer_);
  for (const auto& [left, code] : {std::pair(milliseconds(-5), absl::StatusCode::kDeadlineExceeded),
                                   std::pair(milliseconds(90), absl::StatusCode::kDeadlineExceeded),
                                   std::pair(milliseconds(5000), absl::StatusCode::kCancelled)}) {
    GenerationRequest request = Request("some words", 5);
    request.arrival = harness.now();
    request.deadline = harness.now() + std::chrono::seconds(10);
    auto sink = std::make_shared<RecordingSink>();
    ASSERT_TRUE(harness.Add(1, request, sink).ok());
    harness.scheduler().Cancel(1, request.deadline - left);
    EXPECT_EQ(sink->error().code(), code) << left.count();
    harness.Turn();
  }
}

TEST_F(SchedulerTest, LookupsThatFallDueTogetherAreHandedOutTogether) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 4, .waiting_max = 4});
  for (uint64_t id = 1; id <= 4; ++id) {
    ASSERT_TRUE(
        harness.Add(id, Request("all one length " + std::to_string(id), 20), std::make_shared<RecordingSink>()).ok());
  }
  for (int turn = 0; turn < 60; ++turn) {
    harness.Turn();
    if (harness.lookups().empty()) continue;
    EXPECT_EQ(harness.lookups().size(), 4U);
    while (!harness.lookups().empty()) harness.Answer(0, false);
  }
  EXPECT_EQ(harness.handed_out(), (std::vector<size_t>{4, 4, 4}));  // two chunks of the prompts, then one and one
}

// What is held of a long prompt is bounded: it is looked up piece by piece, each before it is needed.
TEST_F(SchedulerTest, NeighboursAheadOfWhatIsFedAreBounded) {
  SchedulerHarness harness(*model_, tokenizer_, {.cache_blocks_max = 128, .prefill_tokens_max = 8});
  GenerationRequest request = Request(std::string(40, 'x') + std::string(40, 'y'), 4);  // ten chunks of 8
  request.retrieval.neighbours_max = Session::kNeighboursAheadMax / 4;
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(1, request, sink).ok());
  std::vector<size_t> chunks;
  for (int turn = 0; turn < 40 && !sink->ended(); ++turn) {
    harness.Turn();
    if (harness.lookups().empty()) continue;
    chunks.push_back(harness.lookups()[0].chunks.size());
    EXPECT_GT(harness.last_tokens(), turn == 0 ? 0 : 7) << "it stands still meanwhile";
    harness.Answer(0, false);
  }
  EXPECT_EQ(chunks, (std::vector<size_t>{4, 2, 2, 2}));
  EXPECT_EQ(sink->Generated(), GenerateAlone(*model_, tokenizer_, request));
}

TEST_F(SchedulerTest, NeighboursToEncodeAreBoundedAndNobodyStarves) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 6, .waiting_max = 6, .encoder_rows_max = 3});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::vector<GenerationRequest> requests;
  for (uint64_t id = 1; id <= 6; ++id) {  // all complete their chunks in the same steps
    requests.push_back(Request("sixteen tokens " + std::to_string(id), 30));
    sinks.push_back(std::make_shared<RecordingSink>());
    ASSERT_TRUE(harness.Add(id, requests.back(), sinks.back()).ok());
  }
  const auto all_ended = [&] { return std::ranges::all_of(sinks, [](const auto& sink) { return sink->ended(); }); };
  bool passed_over = false;
  for (int turn = 0; turn < 400 && !all_ended(); ++turn) {
    while (!harness.lookups().empty()) harness.Answer(0, false);
    harness.Turn();
    EXPECT_LE(harness.last_rows(), 3);
    passed_over = passed_over || (harness.last_items() > 0 && harness.last_items() < 6);
  }
  EXPECT_TRUE(passed_over);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(sinks[i]->Generated(), GenerateAlone(*model_, tokenizer_, requests[i])) << i;
  }
}

// A chunk with more neighbours than the bound is encoded, by itself.
TEST_F(SchedulerTest, AChunkWithManyNeighboursIsTheOnlyOneOfItsStep) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 2, .waiting_max = 2, .encoder_rows_max = 1});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t id = 1; id <= 2; ++id) {
    sinks.push_back(std::make_shared<RecordingSink>());
    ASSERT_TRUE(harness.Add(id, Request("sixteen tokens" + std::to_string(10 * id), 30), sinks.back()).ok());
  }
  for (int turn = 0; turn < 200; ++turn) {
    while (!harness.lookups().empty()) harness.Answer(0, false);
    harness.Turn();
    EXPECT_LE(harness.last_rows(), 2);  // that one chunk has
  }
  for (const auto& sink : sinks) EXPECT_TRUE(sink->finish().has_value());
}

TEST_F(SchedulerTest, AnExpiredSessionEnds) {
  SchedulerHarness harness(*model_, tokenizer_);
  GenerationRequest request = Request("late", 50);
  request.deadline = harness.now() + milliseconds(5);
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(1, std::move(request), sink).ok());
  harness.Turn();
  EXPECT_EQ(harness.scheduler().NextDeadline(), std::optional(harness.now() + milliseconds(4)));
  harness.now() += milliseconds(10);
  harness.Turn();
  EXPECT_EQ(sink->error().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(harness.scheduler().running(), 0);
}

TEST_F(SchedulerTest, PastTheBoundsASessionIsRefused) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 1, .waiting_max = 1, .cache_blocks_max = 8});
  const auto sink = std::make_shared<RecordingSink>();
  const absl::Status large = harness.Add(1, Request("x", 64), sink);  // 65 tokens: nine chunks of 8
  EXPECT_EQ(large.code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(harness.Add(2, Request("x", 63), sink).ok());
  harness.Turn();
  ASSERT_TRUE(harness.Add(3, Request("x", 1), sink).ok());
  EXPECT_EQ(harness.Add(4, Request("x", 1), sink).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(SchedulerTest, NeighboursCountAmongTheCacheBlocks) {
  ModelFacts facts = TinyFacts(*model_, tokenizer_);
  facts.neighbour_tokens = 12;
  Scheduler scheduler(facts, {.cache_blocks_max = 8});
  const auto sink = std::make_shared<RecordingSink>();
  GenerationRequest request = Request("x", 15);  // two chunks of 8
  request.retrieval.neighbours_max = 4;          // as large as six
  const Clock::time_point now = Clock::now();
  ASSERT_TRUE(scheduler.Add(1, request, sink, now).ok());
  ASSERT_TRUE(scheduler.Add(2, request, sink, now).ok());
  scheduler.Settle(now);
  EXPECT_EQ(scheduler.cache_blocks(), 8);
  EXPECT_EQ(scheduler.running(), 1);
  request.retrieval.neighbours_max = 5;
  const absl::Status refused = scheduler.Add(3, request, sink, now);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("5 neighbours"));
  request.retrieval.enabled = false;
  EXPECT_TRUE(scheduler.Add(4, request, sink, now).ok());
}

TEST_F(SchedulerTest, ALookupWithoutAnAnswerEndsByItself) {
  for (const FailurePolicy policy : {FailurePolicy::kGoOnWithout, FailurePolicy::kFail}) {
    SchedulerHarness harness(*model_, tokenizer_);
    GenerationRequest request = Request("eight by", 3);
    request.retrieval.timeout_ms = milliseconds(40);
    request.retrieval.on_failure = policy;
    auto sink = std::make_shared<RecordingSink>();
    ASSERT_TRUE(harness.Add(1, std::move(request), sink).ok());
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
  SchedulerHarness harness(*model_, tokenizer_);
  auto behind = std::make_shared<RecordingSink>();
  auto reads = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(1, Request("a", 10, false), behind).ok());
  ASSERT_TRUE(harness.Add(2, Request("b", 10, false), reads).ok());
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

TEST_F(SchedulerTest, ReadersThatAreBehindAreLeftAloneWhileThereArePlaces) {
  SchedulerHarness harness(*model_, tokenizer_);
  auto behind = std::make_shared<RecordingSink>();
  behind->SetRoom(false);
  ASSERT_TRUE(harness.Add(1, Request("a", 10, false), behind).ok());
  harness.Turn();
  harness.now() += milliseconds(500);
  for (uint64_t id = 2; id < 6; ++id) {
    auto comes = std::make_shared<RecordingSink>();
    ASSERT_TRUE(harness.Add(id, Request("b", 3, false), comes).ok());
    for (int turn = 0; turn < 5; ++turn) harness.Turn();
    EXPECT_TRUE(comes->finish().has_value());
  }
  EXPECT_FALSE(behind->ended());
}

TEST_F(SchedulerTest, ReadersThatAreBehindGiveWayToWhoWaitsForAPlace) {
  SchedulerHarness harness(*model_, tokenizer_);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t id = 1; id <= 3; ++id) {
    sinks.push_back(std::make_shared<RecordingSink>());
    sinks.back()->SetRoom(false);
    ASSERT_TRUE(harness.Add(id, Request("a", 10, false), sinks.back()).ok());
  }
  harness.Turn();
  harness.now() += milliseconds(500);
  harness.Turn();
  for (const auto& sink : sinks) EXPECT_FALSE(sink->ended()) << "nobody waits";
  auto waits = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(4, Request("b", 3, false), waits).ok());
  for (int turn = 0; turn < 5; ++turn) harness.Turn();
  EXPECT_TRUE(waits->finish().has_value());
  for (const auto& sink : sinks) EXPECT_EQ(sink->error().code(), absl::StatusCode::kCancelled);
}

TEST_F(SchedulerTest, ADrainTellsWhatIsNeededToGoOn) {
  SchedulerHarness harness(*model_, tokenizer_);
  const GenerationRequest request = Request("resume me", 20, false);
  const std::vector<TokenId> alone = GenerateAlone(*model_, tokenizer_, request);
  auto cut = std::make_shared<RecordingSink>();
  ASSERT_TRUE(harness.Add(1, request, cut).ok());
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
  ASSERT_TRUE(harness.Add(2, rest, resumed).ok());
  for (int turn = 0; turn < 40; ++turn) harness.Turn();
  for (const TokenId id : resumed->Generated()) all.push_back(id);
  EXPECT_EQ(all, alone);
}

}  // namespace
}  // namespace retro
