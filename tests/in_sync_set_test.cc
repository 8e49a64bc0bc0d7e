#include "retriever_service/replica/in_sync_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "common/base/error.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr milliseconds kLate{1000};

class InSyncSetTest : public testing::Test {
 protected:
  InSyncSetTest() { set_.Follow(absl::FailedPreconditionError("not yet")); }

  // A caller who has left at once: OK only if there is nothing to wait for.
  bool AcknowledgesNow(uint64_t number, uint64_t epoch = 2) {
    CallContext gone;
    gone.cancelled = [] { return true; };
    const auto write = set_.BeginWrite(epoch);
    if (!write.ok()) return false;
    const bool acknowledged = set_.WaitFor(*write, MakePosition(epoch, number), gone).ok();
    set_.EndWrite();
    return acknowledged;
  }

  InSyncSet set_{kLate};
};

TEST_F(InSyncSetTest, NothingIsWrittenWithoutALead) {
  EXPECT_EQ(set_.BeginWrite(2).status().message(), "not yet");
  set_.Lead(2, {}, 1);
  EXPECT_TRUE(AcknowledgesNow(1));
  EXPECT_EQ(ReasonOf(set_.BeginWrite(1).status()), Reason::kStaleEpoch);
  EXPECT_EQ(ReasonOf(set_.BeginWrite(3).status()), Reason::kStaleEpoch);
  set_.Follow(absl::FailedPreconditionError("over"));
  EXPECT_EQ(set_.BeginWrite(2).status().message(), "over");
}

TEST_F(InSyncSetTest, WritesWaitForAllThatAreInSync) {
  set_.Lead(2, {"b", "c"}, 1);
  EXPECT_FALSE(AcknowledgesNow(5));
  EXPECT_TRUE(set_.Pulled("b", MakePosition(2, 5), MakePosition(2, 5)));
  EXPECT_FALSE(AcknowledgesNow(5));
  EXPECT_TRUE(set_.Pulled("c", MakePosition(2, 4), MakePosition(2, 5)));
  EXPECT_FALSE(AcknowledgesNow(5));
  EXPECT_TRUE(AcknowledgesNow(4));
  EXPECT_TRUE(set_.Pulled("c", MakePosition(2, 5), MakePosition(2, 5)));
  EXPECT_TRUE(AcknowledgesNow(5));
}

TEST_F(InSyncSetTest, TooFewInSyncRefuseWrites) {
  set_.Lead(2, {"b"}, 3);
  EXPECT_EQ(ReasonOf(set_.BeginWrite(2).status()), Reason::kShardUnavailable);
  set_.Lead(3, {"b", "c"}, 3);
  EXPECT_TRUE(set_.BeginWrite(3).ok());
}

TEST_F(InSyncSetTest, AWriteOfAnEndedLeadIsUnknown) {
  set_.Lead(2, {"b"}, 1);
  const uint64_t write = *set_.BeginWrite(2);
  std::thread waiting([&] {
    const absl::Status status = set_.WaitFor(write, MakePosition(2, 1), CallContext());
    EXPECT_EQ(ReasonOf(status), Reason::kWriteOutcomeUnknown) << status;
  });
  set_.Follow(absl::FailedPreconditionError("over"));
  waiting.join();
  set_.Lead(3, {}, 1);  // again, without anybody to wait for
  EXPECT_EQ(ReasonOf(set_.WaitFor(write, MakePosition(2, 1), CallContext())), Reason::kWriteOutcomeUnknown);
}

TEST_F(InSyncSetTest, WhoHoldsUpAWriteIsLate) {
  set_.Lead(2, {"b", "c"}, 1);
  set_.Pulled("b", MakePosition(2, 1), MakePosition(2, 1));
  const auto now = InSyncSet::Clock::now();
  EXPECT_THAT(set_.Propose(now + 10 * kLate).drop, IsEmpty()) << "no write waits";
  const uint64_t write = *set_.BeginWrite(2);
  std::thread waiting([&] { EXPECT_TRUE(set_.WaitFor(write, MakePosition(2, 1), CallContext()).ok()); });
  InSyncSet::Proposal proposal;
  while (proposal.drop.empty()) proposal = set_.Propose(now + 100 * kLate);  // until it waits
  EXPECT_THAT(proposal.drop, ElementsAre("c"));
  EXPECT_THAT(set_.Propose(now).drop, IsEmpty());
  set_.Lead(3, {"b"}, 1);
  waiting.join();
}

// Nobody can pull while an epoch begins.
TEST_F(InSyncSetTest, NobodyIsLateAsSoonAsAnEpochHasBegun) {
  set_.Lead(2, {"b"}, 1);
  const uint64_t write = *set_.BeginWrite(2);
  std::thread waiting([&] { EXPECT_TRUE(set_.WaitFor(write, MakePosition(2, 1), CallContext()).ok()); });
  while (set_.Propose(InSyncSet::Clock::now() + 100 * kLate).drop.empty()) std::this_thread::yield();  // until it waits
  const auto waits = InSyncSet::Clock::now();
  std::this_thread::sleep_for(milliseconds(20));
  set_.Lead(3, {"b"}, 1);
  EXPECT_THAT(set_.Propose(waits + kLate).drop, IsEmpty());
  EXPECT_THAT(set_.Propose(InSyncSet::Clock::now() + kLate).drop, ElementsAre("b"));
  set_.Lead(4, {}, 1);
  waiting.join();
}

TEST_F(InSyncSetTest, WhoTakesALargeChangeIsNotLateWhileThatGoesOn) {
  set_.Lead(2, {"b"}, 1);
  set_.Pulled("b", MakePosition(2, 1), MakePosition(2, 2));
  const uint64_t write = *set_.BeginWrite(2);
  std::thread waiting([&] { EXPECT_TRUE(set_.WaitFor(write, MakePosition(2, 2), CallContext()).ok()); });
  while (set_.Propose(InSyncSet::Clock::now() + 100 * kLate).drop.empty()) std::this_thread::yield();
  const auto waits = InSyncSet::Clock::now();
  std::this_thread::sleep_for(milliseconds(20));
  set_.Sent("b");
  EXPECT_THAT(set_.Propose(waits + kLate).drop, IsEmpty()) << "it took a part after that";
  EXPECT_THAT(set_.Propose(InSyncSet::Clock::now() + kLate).drop, ElementsAre("b")) << "and no other";
  // What it cannot apply it pulls again and again.
  set_.Pulled("b", MakePosition(2, 1), MakePosition(2, 2));
  const auto again = InSyncSet::Clock::now();
  std::this_thread::sleep_for(milliseconds(20));
  set_.Sent("b");
  EXPECT_THAT(set_.Propose(again + kLate).drop, ElementsAre("b"));
  set_.Lead(3, {}, 1);
  waiting.join();
}

TEST_F(InSyncSetTest, WhoCaughtUpIsWaitedForBeforeItIsNamed) {
  set_.Lead(2, {}, 1);
  EXPECT_TRUE(AcknowledgesNow(7));
  set_.Pulled("b", MakePosition(2, 5), MakePosition(2, 7));
  EXPECT_THAT(set_.Propose(InSyncSet::Clock::now()).add, IsEmpty()) << "behind";
  // Caught up with what was newest when it asked, but 7 was acknowledged since.
  set_.Pulled("b", MakePosition(2, 6), MakePosition(2, 6));
  EXPECT_THAT(set_.Propose(InSyncSet::Clock::now()).add, IsEmpty());
  EXPECT_FALSE(AcknowledgesNow(8)) << "it joins: from now on it must have what is acknowledged";
  set_.Pulled("b", MakePosition(2, 8), MakePosition(2, 8));
  EXPECT_THAT(set_.Propose(InSyncSet::Clock::now()).add, ElementsAre("b"));
  EXPECT_TRUE(AcknowledgesNow(8));
}

TEST_F(InSyncSetTest, BeforeAStopWritesEndAndNobodyIsDropped) {
  set_.Lead(2, {"b"}, 1);
  const uint64_t write = *set_.BeginWrite(2);
  std::thread waiting([&] {
    EXPECT_TRUE(set_.WaitFor(write, MakePosition(2, 1), CallContext()).ok());
    set_.EndWrite();
  });
  while (set_.Propose(InSyncSet::Clock::now() + 100 * kLate).drop.empty()) std::this_thread::yield();  // until it waits
  std::thread closing([&] { set_.Close(); });
  absl::StatusOr<uint64_t> refused;
  while ((refused = set_.BeginWrite(2)).ok()) set_.EndWrite();
  EXPECT_EQ(ReasonOf(refused.status()), Reason::kShuttingDown) << refused.status();
  EXPECT_TRUE(set_.Propose(InSyncSet::Clock::now() + 100 * kLate).empty());
  EXPECT_EQ(set_.epoch(), 2u) << "whom it waits for can pull";
  set_.Pulled("b", MakePosition(2, 1), MakePosition(2, 1));
  waiting.join();
  closing.join();
  EXPECT_EQ(set_.epoch(), 0u);
}

TEST_F(InSyncSetTest, AStopWaitsForNobodyWhoIsGone) {
  InSyncSet set(milliseconds(50));
  set.Lead(2, {"b"}, 1);
  const uint64_t write = *set.BeginWrite(2);
  std::thread waiting([&] {
    const absl::Status status = set.WaitFor(write, MakePosition(2, 1), CallContext());
    EXPECT_EQ(ReasonOf(status), Reason::kWriteOutcomeUnknown) << status;
  });
  set.Close();
  waiting.join();
}

TEST_F(InSyncSetTest, WhoLostItsStoreIsDropped) {
  set_.Lead(2, {"b"}, 1);
  EXPECT_TRUE(set_.Pulled("b", MakePosition(2, 9), MakePosition(2, 9)));
  EXPECT_FALSE(set_.Pulled("b", MakePosition(2, 8), MakePosition(2, 9)));
  EXPECT_THAT(set_.Propose(InSyncSet::Clock::now()).drop, ElementsAre("b"));
  set_.Lead(3, {"c"}, 1);
  EXPECT_FALSE(set_.Pulled("c", MakePosition(1, 0), MakePosition(2, 9))) << "empty";
  EXPECT_TRUE(set_.Pulled("b", MakePosition(1, 0), MakePosition(2, 9))) << "it may begin anew";
}

}  // namespace
}  // namespace retro
