// Who gets places and cache blocks, and when.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "generator_service/engine/scheduler.h"
#include "tests/scheduler_fixture.h"

namespace retro {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using SchedulerPlacesTest = SchedulerTest;

TEST_F(SchedulerPlacesTest, PlacesAreSharedBetweenKeys) {
  SchedulerLimits limits = kTightLimits;
  limits.sessions_max = 2;
  limits.waiting_max = 4;
  SchedulerHarness harness(*model_, tokenizer_, limits);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t id = 1; id <= 5; ++id) {
    GenerationRequest request = Request("some words", 6, /*retrieval=*/false);
    request.key = id == 5 ? "small" : "large";
    sinks.push_back(std::make_shared<RecordingSink>());
    ASSERT_TRUE(harness.Add(id, std::move(request), sinks.back()).ok());
  }
  while (!sinks[4]->finish().has_value()) harness.Turn();
  const auto finished = [&](size_t i) { return sinks[i]->finish().has_value(); };
  EXPECT_TRUE(finished(0));
  EXPECT_FALSE(finished(2) || finished(3)) << "the last to come was served before them";
}

TEST_F(SchedulerPlacesTest, KeysTakeTurnsAtTheOnlyPlace) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 1, .waiting_max = 8});
  std::vector<std::shared_ptr<RecordingSink>> large;
  for (int i = 0; i < 4; ++i) large.push_back(Add(harness, Plain(6, "large")));
  harness.Turn();
  const auto small = Add(harness, Plain(6, "small"));
  for (int turn = 0; turn < 40 && !small->finish().has_value(); ++turn) harness.Turn();
  EXPECT_TRUE(small->finish().has_value());
  EXPECT_TRUE(large[1]->finish().has_value()) << "whose key had the place before the other came";
  EXPECT_TRUE(large[2]->Generated().empty());
}

TEST_F(SchedulerPlacesTest, AKeyLeavesTheLastPlacesToOthers) {
  for (const bool several : {false, true}) {
    SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 8, .waiting_max = 16, .cache_blocks_max = 1000});
    if (several) Add(harness, Plain(1 + 1, "small"));
    harness.Turn();
    EXPECT_EQ(harness.scheduler().running(), 0);
    for (int i = 0; i < 12; ++i) Add(harness, Plain(100, "large"));
    harness.Turn();
    EXPECT_EQ(harness.scheduler().running(), several ? 7 : 8);
    const auto small = Add(harness, Plain(4, "small"));
    for (int turn = 0; turn < 10; ++turn) harness.Turn();
    EXPECT_EQ(small->finish().has_value(), several) << "with a place of its own at once";
    EXPECT_EQ(harness.scheduler().running(), several ? 7 : 8);
    if (!several) continue;
    EXPECT_LE(harness.scheduler().NextDeadline().value_or(Clock::time_point::max()), harness.now() + minutes(1));
    harness.now() += minutes(1);
    harness.Turn();
    EXPECT_EQ(harness.scheduler().running(), 8) << "no other has come for long";
  }
}

TEST_F(SchedulerPlacesTest, ReadersThatAreBehindGiveWayToTheirOwnKeyToo) {
  const milliseconds stall_max = SchedulerLimits().stall_ms_max;
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 8, .waiting_max = 8, .cache_blocks_max = 1000});
  Add(harness, Plain(1 + 1, "small"));
  harness.Turn();
  std::vector<std::shared_ptr<RecordingSink>> behind;
  for (int i = 0; i < 7; ++i) {
    behind.push_back(Add(harness, Plain(20, "large")));
    behind.back()->SetRoom(false);
  }
  harness.Turn();
  const auto waits = Add(harness, Plain(20, "large"));
  harness.Turn();
  EXPECT_EQ(harness.scheduler().waiting(), 1) << "one of the places is for others";
  harness.now() += stall_max / 10 + milliseconds(1);
  for (int turn = 0; turn < 30; ++turn) harness.Turn();
  for (const auto& sink : behind) EXPECT_EQ(sink->error().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(waits->finish().has_value());
}

TEST_F(SchedulerPlacesTest, AKeyLeavesTheLastOfTheCacheToOthers) {
  for (const bool several : {false, true}) {
    SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 16, .waiting_max = 16, .cache_blocks_max = 20});
    if (several) Add(harness, Plain(1 + 1, "small"));
    harness.Turn();
    for (int i = 0; i < 8; ++i) Add(harness, Plain(32, "large"));  // four blocks each
    harness.Turn();
    EXPECT_EQ(harness.scheduler().cache_blocks(), several ? 16 : 20);
    const auto small = Add(harness, Plain(30, "small"));
    for (int turn = 0; turn < 6; ++turn) harness.Turn();
    EXPECT_EQ(harness.scheduler().cache_blocks(), 20);
    EXPECT_EQ(small->Generated().empty(), !several);
  }
  // Also where what it wants would fit beside what the others have just now.
  SchedulerHarness shared(*model_, tokenizer_, {.sessions_max = 8, .waiting_max = 8, .cache_blocks_max = 20});
  Add(shared, Plain(64, "large"));
  Add(shared, Plain(32, "small"));
  Add(shared, Plain(64, "large"));
  shared.Turn();
  EXPECT_EQ(shared.scheduler().cache_blocks(), 12);
  // Who has nothing may have all of it.
  SchedulerHarness harness(*model_, tokenizer_, {.cache_blocks_max = 8});
  for (const char* key : {"small", "large"}) {
    const auto sink = Add(harness, Plain(64, key));
    for (int turn = 0; turn < 80; ++turn) harness.Turn();
    EXPECT_TRUE(sink->finish().has_value()) << key;
  }
}

TEST_F(SchedulerPlacesTest, WhoWaitsForRoomLetsThosePassThatEndBeforeItHasIt) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 4, .waiting_max = 8, .cache_blocks_max = 10});
  const auto runs = Add(harness, Plain(24));
  const auto waits = Add(harness, Plain(64));       // eight blocks, where seven are left
  const auto ends_later = Add(harness, Plain(32));  // though it would fit
  const auto ends_before = Add(harness, Plain(8));
  bool passed = false;
  for (int turn = 0; turn < 200 && !ends_later->ended(); ++turn) {
    harness.Turn();
    passed = passed || (ends_before->ended() && waits->Generated().empty());
    EXPECT_FALSE(waits->Generated().empty() && !ends_later->Generated().empty()) << turn;
  }
  EXPECT_TRUE(passed);
  for (const auto& sink : {runs, waits, ends_later, ends_before}) EXPECT_TRUE(sink->finish().has_value());
}

TEST_F(SchedulerPlacesTest, APromptEndsSoonerThanAsManyTokensOfAText) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 4, .waiting_max = 8, .cache_blocks_max = 10});
  Add(harness, Plain(44, "", /*prompt=*/40));
  const auto waits = Add(harness, Plain(56));
  const auto ends_later = Add(harness, Plain(30));
  for (int turn = 0; turn < 100 && waits->Generated().empty(); ++turn) harness.Turn();
  EXPECT_FALSE(waits->Generated().empty());
  EXPECT_TRUE(ends_later->Generated().empty());
}

TEST_F(SchedulerPlacesTest, PromptsEndOneAfterTheOther) {
  SchedulerHarness harness(*model_, tokenizer_,
                           {.sessions_max = 8,
                            .waiting_max = 8,
                            .cache_blocks_max = 40,
                            .prefill_tokens_max = 4,
                            .prefill_tokens_shared_max = 4});
  for (int i = 0; i < 4; ++i) Add(harness, Plain(70, "", /*prompt=*/64));
  Add(harness, Plain(128));  // has room once two of them have ended, in 38 steps
  Add(harness, Plain(40));
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 4);
  Add(harness, Plain(30));
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 5);
}

TEST_F(SchedulerPlacesTest, AsSoonAsOneEndsTheNextHasItsPlace) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 1, .waiting_max = 4});
  for (int i = 0; i < 2; ++i) Add(harness, Request("x", 0, /*retrieval=*/false));  // nothing to compute
  Add(harness, Plain(8));
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 1);
  EXPECT_EQ(harness.scheduler().waiting(), 0);
}

TEST_F(SchedulerPlacesTest, AReaderThatIsBehindMayStayWhereAPlaceIsFreedByADeadline) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 2, .waiting_max = 2});
  GenerationRequest late = Plain(100);
  late.deadline = harness.now() + milliseconds(30'000);
  const auto ends = Add(harness, late);
  const auto behind = Add(harness, Plain(20));
  behind->SetRoom(false);
  harness.Turn();
  harness.now() = late.deadline;
  Add(harness, Plain(20));
  harness.Turn();
  EXPECT_EQ(ends->error().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(behind->ended());
  EXPECT_EQ(harness.scheduler().running(), 2);
}

// A promise is of a step, which turns in which nothing is computed bring no nearer.
TEST_F(SchedulerPlacesTest, ThePromiseOfRoomWaitsForStepsNotForTurns) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 4, .waiting_max = 4, .cache_blocks_max = 40});
  GenerationRequest looks_up = Request("eight by", 40);
  looks_up.retrieval.timeout_ms = minutes(1);
  Add(harness, looks_up);
  harness.Turn();
  ASSERT_EQ(harness.lookups().size(), 1U);
  Add(harness, Plain(8 * (41 - harness.scheduler().cache_blocks())));
  for (int turn = 0; turn < 100; ++turn) harness.Turn();
  const auto passes = Add(harness, Plain(3));
  for (int turn = 0; turn < 5; ++turn) harness.Turn();
  EXPECT_TRUE(passes->finish().has_value());
}

// Who was promised room has it then, also where another of its key has passed it.
TEST_F(SchedulerPlacesTest, ThePromiseOfRoomHoldsThoughItsKeyHasSomeMeanwhile) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 8, .waiting_max = 8, .cache_blocks_max = 20});
  Add(harness, Plain(80, "small", /*prompt=*/40));       // ten blocks, for 40 steps
  const auto waits = Add(harness, Plain(144, "large"));  // eighteen
  const auto passes = Add(harness, Plain(32, "large"));
  int turns = 0;
  for (; waits->Generated().empty() && turns < 100; ++turns) {
    if (turns == 15) Add(harness, Plain(32, "small"));  // would fit, but not end before
    harness.Turn();
  }
  EXPECT_TRUE(passes->finish().has_value());
  EXPECT_LE(turns, 43);
}

// Else others would have but few places where there are many.
TEST_F(SchedulerPlacesTest, NobodyIsHeldUpByWhoWaitsForItsOwnKeysCache) {
  for (const bool later : {false, true}) {
    SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 8, .waiting_max = 8, .cache_blocks_max = 20});
    Add(harness, Plain(64, "large", /*prompt=*/40));
    Add(harness, Plain(104, "large"));  // thirteen blocks beside eight, of twenty
    if (later) harness.Turn();
    for (int i = 0; i < 2; ++i) Add(harness, Plain(32, "small"));  // they end after the first
    harness.Turn();
    EXPECT_EQ(harness.scheduler().cache_blocks(), 16);
    EXPECT_EQ(harness.scheduler().waiting(), 1);
  }
}

// The promise that is made first stays the only one.
TEST_F(SchedulerPlacesTest, ThePromiseOfRoomHoldsThoughItsKeyHasItsShareOfPlaces) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 8, .waiting_max = 16, .cache_blocks_max = 20});
  Add(harness, Plain(64, "small", /*prompt=*/24));       // eight blocks, for 40 steps
  const auto waits = Add(harness, Plain(160, "large"));  // all twenty
  for (int i = 0; i < 4; ++i) Add(harness, Plain(8, "large"));
  for (int i = 0; i < 2; ++i) Add(harness, Plain(8, "small"));
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 7);
  const auto ends_later = Add(harness, Plain(48, "other"));  // for which there are blocks, and a place
  int turns = 0;
  for (; waits->Generated().empty() && turns < 200; ++turns) harness.Turn();
  EXPECT_LE(turns, 44);
  EXPECT_TRUE(ends_later->Generated().empty());
}

// Two keys whose generations take nearly all take turns; the third's does too, though its short ones fit beside them.
TEST_F(SchedulerPlacesTest, NobodyIsPassedForEverByTheShortOnesOfItsOwnKey) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 8, .waiting_max = 32, .cache_blocks_max = 20});
  for (int i = 0; i < 6; ++i) {
    for (const char* key : {"a", "b"}) Add(harness, Plain(144, key));
  }
  const auto waits = Add(harness, Plain(144, "c"));
  int turns = 0;
  for (; waits->Generated().empty() && turns < 1200; ++turns) {
    if (turns % 4 == 0 && harness.scheduler().waiting() < 30) Add(harness, Plain(3, "c"));
    harness.Turn();
  }
  EXPECT_LE(turns, 3 * 150) << "after one of each";
}

// So none of them passes one that fits, but would end too late to pass who is promised room.
TEST_F(SchedulerPlacesTest, WhoMayNotPassIsNotPassedByItsOwnKey) {
  for (const bool same : {false, true}) {
    SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 8, .waiting_max = 8, .cache_blocks_max = 12});
    Add(harness, Plain(80, "a", /*prompt=*/76));
    Add(harness, Plain(80, "b"));  // is promised room in a few steps
    Add(harness, Plain(16, "c"));  // has more
    Add(harness, Plain(2, same ? "c" : "d"));
    harness.Turn();
    EXPECT_EQ(harness.scheduler().waiting(), same ? 3 : 2);
  }
}

TEST_F(SchedulerPlacesTest, OneIsPromisedRoomAtATime) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 8, .waiting_max = 8, .cache_blocks_max = 20});
  Add(harness, Plain(64, "", /*prompt=*/54));
  Add(harness, Plain(64, "", /*prompt=*/4));
  const auto first = Add(harness, Plain(96));  // has room once the first of them ends
  Add(harness, Plain(160));                    // once both do
  Add(harness, Plain(32));                     // ends between
  int turns = 0;
  for (; first->Generated().empty() && turns < 100; ++turns) harness.Turn();
  EXPECT_LE(turns, 15);
}

// Also while it is measured what a step takes by itself.
TEST_F(SchedulerPlacesTest, RoomIsPromisedBesideALongPrompt) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 8, .waiting_max = 200, .cache_blocks_max = 40});
  harness.SetStepTime(milliseconds(10), milliseconds(10));
  const auto decodes = Add(harness, Plain(160));
  for (int turn = 0; turn < 5; ++turn) harness.Turn();
  Add(harness, Plain(150, "", /*prompt=*/140));  // of which each step has one token
  for (int turn = 0; turn < 80; ++turn) {
    Add(harness, Plain(8));
    harness.Turn();
  }
  EXPECT_GE(decodes->Generated().size(), 80U);
}

TEST_F(SchedulerPlacesTest, WhoWaitsForASlowReadersRoomLetsOthersPassFromTimeToTime) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 4, .waiting_max = 8, .cache_blocks_max = 10});
  const auto next_look = [&] { return harness.scheduler().NextDeadline().value_or(Clock::time_point::max()); };
  const auto slow = Add(harness, Plain(24));
  const auto waits = Add(harness, Plain(64));
  const auto passes = Add(harness, Plain(40));  // ends later, by the steps
  harness.Turn();
  slow->SetRoom(false);
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 1);
  EXPECT_LE(next_look(), harness.now() + milliseconds(1000));
  harness.now() = next_look();
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 2);
  harness.now() = next_look();
  const auto passes_later = Add(harness, Plain(30));
  for (int turn = 0; turn < 50; ++turn) harness.Turn();
  EXPECT_TRUE(passes->finish().has_value());
  EXPECT_EQ(harness.scheduler().running(), 1) << "nobody passes for a while";
  harness.now() = next_look();
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 2);
  slow->SetRoom(true);
  for (int turn = 0; turn < 50; ++turn) harness.Turn();
  for (const auto& sink : {slow, passes_later}) EXPECT_TRUE(sink->finish().has_value());
  EXPECT_FALSE(waits->Generated().empty());
}

// Else nothing would be late for as long as the steps would take if all were like it.
TEST_F(SchedulerPlacesTest, AStepThatWasHeldUpMakesNoPromiseALaterOne) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 4, .waiting_max = 8, .cache_blocks_max = 10});
  harness.SetStepTime(milliseconds(1), {});
  const auto slow = Add(harness, Plain(24));
  for (int turn = 0; turn < 3; ++turn) harness.Turn();
  harness.SetStepTime(std::chrono::seconds(10), {});
  harness.Turn();
  harness.SetStepTime(milliseconds(1), {});
  slow->SetRoom(false);
  Add(harness, Plain(64));
  Add(harness, Plain(40));
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 1);
  harness.now() += milliseconds(1500);
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 2);
}

// Whose caller leaves while there is no place for anybody.
TEST_F(SchedulerPlacesTest, WhatOneWaitedCountsForNobodyLater) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 3, .waiting_max = 10, .cache_blocks_max = 10});
  Add(harness, Plain(48));
  Add(harness, Plain(64));  // is promised room
  const uint64_t leaves = last_id_;
  for (int i = 0; i < 7; ++i) Add(harness, Plain(8));
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 3);
  harness.scheduler().Cancel(leaves, harness.now());
  harness.Turn();
  harness.now() += minutes(1);
  const auto waits = Add(harness, Plain(64));
  const auto ends_later = Add(harness, Plain(32));
  for (int turn = 0; turn < 38; ++turn) harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 1) << "this one has to wait as long as any";
  EXPECT_TRUE(ends_later->Generated().empty());
  EXPECT_TRUE(waits->Generated().empty());
}

// Though others of them come all the time.
TEST_F(SchedulerPlacesTest, WhoWaitsForSlowReadersRoomHasItOnce) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 4, .waiting_max = 8, .cache_blocks_max = 10});
  std::vector<std::shared_ptr<RecordingSink>> slow = {Add(harness, Plain(24))};
  const auto waits = Add(harness, Plain(64));
  const Clock::time_point start = harness.now();
  const auto reads = [&](bool they_do) {
    for (const auto& sink : slow) sink->SetRoom(they_do);
  };
  while (waits->Generated().empty() && harness.now() < start + minutes(5)) {
    harness.now() += milliseconds(200);
    if (harness.scheduler().waiting() < 4) slow.push_back(Add(harness, Plain(24)));
    reads(true);
    harness.Turn();
    reads(false);
  }
  EXPECT_GE(std::ranges::count_if(slow, [](const auto& sink) { return sink->finish().has_value(); }), 4);
  EXPECT_LE(harness.now() - start, std::chrono::seconds(20)) << "where each has five";
}

// However many come after it.
TEST_F(SchedulerPlacesTest, WhoWaitsForRoomHasItWhenItWasToHaveIt) {
  SchedulerHarness harness(*model_, tokenizer_, {.sessions_max = 4, .waiting_max = 8, .cache_blocks_max = 10});
  Add(harness, Plain(24));
  const auto waits = Add(harness, Plain(64));
  std::vector<std::shared_ptr<RecordingSink>> others;
  int turns = 0;
  for (; waits->Generated().empty() && turns < 100; ++turns) {
    if (harness.scheduler().waiting() < 4) others.push_back(Add(harness, Plain(6)));
    harness.Turn();
  }
  EXPECT_GE(std::ranges::count_if(others, [](const auto& sink) { return sink->finish().has_value(); }), 3);
  EXPECT_LE(turns, 30);
}

}  // namespace
}  // namespace retro
