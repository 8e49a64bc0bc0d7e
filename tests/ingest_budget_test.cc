#include "retriever_service/ingest/ingest_budget.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace retro {
namespace {

TEST(IngestBudgetTest, WhatDoesNotFitWaitsInOrder) {
  IngestBudget budget(/*documents_max=*/10, /*bytes_max=*/100);
  std::vector<std::string> order;
  budget.Acquire(60, "", [&] { order.push_back("a"); });
  budget.Acquire(60, "", [&] { order.push_back("b"); });
  budget.Acquire(10, "", [&] { order.push_back("c"); });  // would fit, but must not overtake b
  EXPECT_EQ(order, std::vector<std::string>({"a"}));
  budget.Release(60);
  EXPECT_EQ(order, std::vector<std::string>({"a", "b", "c"}));
  EXPECT_EQ(budget.bytes(), 70u);
  EXPECT_EQ(budget.documents(), 2u);
}

TEST(IngestBudgetTest, KeysThatWaitTakeTurns) {
  IngestBudget budget(/*documents_max=*/1, /*bytes_max=*/100);
  std::string order;
  budget.Acquire(1, "a", [&] { order += 'a'; });
  for (int i = 0; i < 3; ++i) budget.Acquire(1, "a", [&] { order += 'a'; });
  for (int i = 0; i < 2; ++i) budget.Acquire(1, "b", [&] { order += 'b'; });
  for (int i = 0; i < 5; ++i) budget.Release(1);
  EXPECT_EQ(order, "aababa");
}

TEST(IngestBudgetTest, WhoeverGetsRoomMayGiveItBackAtOnceHoweverManyWait) {
  constexpr int kWaiting = 200'000;  // each inside another would take more stack than there is
  IngestBudget budget(/*documents_max=*/1, /*bytes_max=*/100);
  int served = 0;
  budget.Acquire(1, "", [] {});
  for (int i = 0; i < kWaiting; ++i) {
    budget.Acquire(1, "", [&] {
      ++served;
      budget.Release(1);
    });
  }
  budget.Release(1);
  EXPECT_EQ(served, kWaiting);
  EXPECT_EQ(budget.documents(), 0u);
}

TEST(IngestBudgetTest, RoomIsWaitedForAndWhatItDoesNotNeedGivenBack) {
  IngestBudget budget(/*documents_max=*/10, /*bytes_max=*/100);
  std::optional<IngestRoom> first(std::in_place, budget, 80, CallContext());
  std::atomic<int> entered = 0;
  std::thread second([&] {
    const IngestRoom room(budget, 40, CallContext());
    ++entered;
  });
  std::thread third([&] {
    const IngestRoom room(budget, 90, CallContext());
    ++entered;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(entered, 0);
  first->ShrinkTo(60);
  first->ShrinkTo(70);  // not that it grows
  EXPECT_EQ(budget.bytes() % 40, 60u % 40) << "the first, and the second or not";
  first.reset();
  second.join();
  third.join();
  EXPECT_EQ(entered, 2);
  EXPECT_EQ(budget.bytes(), 0u);
  EXPECT_EQ(budget.documents(), 0u);
}

TEST(IngestBudgetTest, WhoseCallerLeavesWaitsNoLongerNorIsWaitedFor) {
  IngestBudget budget(/*documents_max=*/10, /*bytes_max=*/100);
  const IngestRoom first(budget, 80, CallContext());
  bool third = false;
  std::atomic<bool> gone = false;
  CallContext context;
  context.cancelled = [&gone] { return gone.load(); };
  std::thread second([&] {
    const IngestRoom room(budget, 40, context);
    EXPECT_TRUE(absl::IsCancelled(room.Check())) << room.Check();
  });
  while (true) {  // until the second waits, behind which whatever comes waits as well
    bool at_once = false;
    budget.Acquire(
        1, "", [&at_once] { at_once = true; }, &at_once);
    if (!at_once) {
      EXPECT_TRUE(budget.Withdraw(&at_once));
      break;
    }
    budget.Release(1);
  }
  budget.Acquire(10, "", [&third] { third = true; });
  EXPECT_FALSE(third);
  gone = true;
  second.join();
  EXPECT_TRUE(third);
  EXPECT_EQ(budget.bytes(), 90u);
  EXPECT_FALSE(budget.Withdraw(&context));
  budget.Release(10);
}

TEST(IngestBudgetTest, DocumentsAreBoundedToo) {
  IngestBudget budget(/*documents_max=*/2, /*bytes_max=*/1000);
  int entered = 0;
  for (int i = 0; i < 5; ++i) budget.Acquire(1, "", [&] { ++entered; });
  EXPECT_EQ(entered, 2);
  budget.Release(1);
  EXPECT_EQ(entered, 3);
}

TEST(IngestBudgetTest, ADocumentLargerThanTheBudgetGetsInAlone) {
  IngestBudget budget(/*documents_max=*/10, /*bytes_max=*/100);
  bool small = false, large = false;
  budget.Acquire(1, "", [&] { small = true; });
  budget.Acquire(500, "", [&] { large = true; });
  EXPECT_TRUE(small);
  EXPECT_FALSE(large);
  budget.Release(1);
  EXPECT_TRUE(large);
}

}  // namespace
}  // namespace retro
