// Replicas of one shard, each with its server, in this process: what each failure does to them. The kills of real
// processes are in cluster_kill_test.cc.
#include "retriever_service/replica/replica.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "retriever_service/replica/replica_admin.h"
#include "tests/replica_fixture.h"

namespace retro {
namespace {

using std::chrono::milliseconds;

TEST_F(ReplicaTest, AcknowledgedIsOnAllReplicas) {
  late_after_ = kNever;
  MakeCluster({"a", "b", "c"});
  Write("before", "x");
  WaitForInSync({"a", "b", "c"});
  for (int i = 0; i < 30; ++i) {
    const std::string id = StrCat("d", i % 10), text(1 + i, 'x');
    Write(id, text);
    for (const char* member : {"a", "b", "c"}) EXPECT_EQ(*ReadOn(member, id), text) << member;
  }
  Delete("d3");
  for (const char* member : {"a", "b", "c"})
    EXPECT_EQ(ReadOn(member, "d3").status().code(), absl::StatusCode::kNotFound);
  ExpectEqual("a", "b");
  ExpectEqual("a", "c");
  EXPECT_EQ(ReasonOf(members_.at("b")->shard().Write(Document("x", "y"), CallContext()).status()), Reason::kStaleEpoch);
}

TEST_F(ReplicaTest, ADocumentLargerThanAMessageIsReplicated) {
  late_after_ = kNever;
  MakeCluster({"a", "b"}, /*min_in_sync=*/2);
  WaitForInSync({"a", "b"});
  const std::string id(512, 'i');
  const auto written = router_->Write(LargeDocument(id), CallContext());
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(ReadOn("b", id)->size(), kLargeDocumentChunks);
  ExpectEqual("a", "b");
}

// The version of the cluster file rises all the time, as it does when other shards' replicas come and go.
TEST_F(ReplicaTest, NewsOfOthersDoesNotEndACopy) {
  log_changes_max_ = 1;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  StopMember("b");
  ASSERT_TRUE(router_->Write(LargeDocument("large"), CallContext()).ok());
  Write("one", "x");
  WaitForInSync({"a"});
  std::filesystem::remove_all(folder_ / "b");
  std::atomic<bool> done = false;
  std::thread news([&] {
    while (!done) {
      EXPECT_TRUE(UpdateClusterFile(file_, [](ClusterConfig&) { return absl::OkStatus(); }).ok());
      std::this_thread::sleep_for(milliseconds(10));
    }
  });
  StartMember("b");
  WaitUntil("b has it", [&] {
    const auto local = members_.at("b")->shard().local();
    return local.ok() && (*local)->position().number() > 0;
  });
  done = true;
  news.join();
  WaitForInSync({"a", "b"});
}

TEST_F(ReplicaTest, TheLogIsKeptForACopyUnderWay) {
  log_changes_max_ = 5;
  MakeCluster({"a"});
  Write("one", "x");
  const auto local = *members_.at("a")->shard().local();
  const shardpb::Position copied = local->position();
  shardpb::FetchSnapshotRequest request;
  request.set_replica("b");
  bool first = true;
  ASSERT_TRUE(members_.at("a")
                  ->replica()
                  .SendSnapshot(request, CallContext(),
                                [&](const auto&) {
                                  for (int i = 0; first && i < 20; ++i) Write(StrCat("d", i), "x");
                                  first = false;
                                  return absl::OkStatus();
                                })
                  .ok());
  EXPECT_EQ(*ChangesAfter(*local, copied), 20);
}

// Who opens a copy of it has told its former life.
TEST_F(ReplicaTest, TheLogIsKeptForAWhileAfterAStart) {
  log_changes_max_ = 5;
  MakeCluster({"a"});
  Write("one", "x");
  const shardpb::Position copied = (*members_.at("a")->shard().local())->position();
  StopMember("a");
  StartMember("a");
  for (int i = 0; i < 20; ++i) Write(StrCat("d", i), "x");
  EXPECT_EQ(*ChangesAfter(**members_.at("a")->shard().local(), copied), 21) << "and an epoch";
}

TEST_F(ReplicaTest, TheLogIsKeptForAWhileAfterAPromotion) {
  late_after_ = kNever;
  log_changes_max_ = 5;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  WaitUntil("b has applied it", [&] { return PositionOf("b").number() == PositionOf("a").number(); });
  const auto local = *members_.at("b")->shard().local();
  const shardpb::Position copied = local->position();
  ASSERT_TRUE(members_.at("b")->replica().Promote().ok());
  for (int i = 0; i < 20; ++i) Write(StrCat("d", i), "x");
  WaitForInSync({"a", "b"});  // with which an epoch begins, too, before the writes or among them
  EXPECT_EQ(*ChangesAfter(*local, copied), local->position().number() - copied.number());
}

// And pulls what came meanwhile.
TEST_F(ReplicaTest, TheLogIsKeptForOneThatOpensItsCopy) {
  log_changes_max_ = 5;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  StopMember("b");
  Write("one", "x");
  WaitForInSync({"a"});
  const auto local = *members_.at("a")->shard().local();
  shardpb::KeepLogRequest keep;
  keep.set_replica("b");
  *keep.mutable_from() = local->position();
  ASSERT_TRUE(members_.at("a")->replica().KeepLog(keep, CallContext()).ok());
  for (int i = 0; i < 20; ++i) Write(StrCat("d", i), "x");
  EXPECT_EQ(*ChangesAfter(*local, keep.from()), 20);
  shardpb::PullChangesRequest pull;
  pull.set_replica("b");
  pull.set_epoch(watch_->Get()->shards[0].epoch);
  *pull.mutable_after() = keep.from();
  pull.mutable_after()->set_number(keep.from().number() + 10);
  const auto take = [](const auto&) { return absl::OkStatus(); };
  ASSERT_TRUE(members_.at("a")->replica().Pull(pull, CallContext(), take).ok());
  for (int i = 0; i < 20; ++i) Write(StrCat("e", i), "x");
  EXPECT_EQ(*ChangesAfter(*local, pull.after()), 30);
  EXPECT_EQ(ReasonOf(ChangesAfter(*local, keep.from()).status()), Reason::kBehindLog);
  keep.set_replica("stranger");
  EXPECT_FALSE(members_.at("a")->replica().KeepLog(keep, CallContext()).ok());
}

TEST_F(ReplicaTest, ReadOnlyHoldsForWhoeverIsThePrimary) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  adminpb::SetReadOnlyRequest request;
  request.set_read_only(true);
  ASSERT_TRUE(MakeReplicaAdmin(members_.at("a")->replica())->SetReadOnly(request, CallContext()).ok());
  EXPECT_TRUE(Refuses("a", Reason::kReadOnly)) << "at once";
  ASSERT_TRUE(members_.at("b")->replica().Promote().ok());
  WaitUntil("b leads and refuses", [&] { return Refuses("b", Reason::kReadOnly); });
  StopMember("b");
  StartMember("b");
  WaitUntil("b leads again and refuses", [&] { return Refuses("b", Reason::kReadOnly); });
  EXPECT_TRUE((*members_.at("b")->shard().local())->Stats({}, {})->stats().read_only());
  request.set_read_only(false);
  ASSERT_TRUE(MakeReplicaAdmin(members_.at("b")->replica())->SetReadOnly(request, CallContext()).ok());
  Write("one", "x");
}

TEST_F(ReplicaTest, WritesThatWaitForAReplicaHoldUpNoReads) {
  late_after_ = kNever;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  std::vector<std::thread> writers;
  for (int i = 0; i < 12; ++i) {  // more than a member has workers
    writers.emplace_back([this, i] {
      CallContext context;
      context.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(3);
      EXPECT_FALSE(router_->Write(Document(StrCat("late", i), "x"), context).ok());
    });
  }
  WaitUntil("they are under way", [&] { return ReadOn("a", "late0").ok() && ReadOn("a", "late11").ok(); });
  shardpb::GetDocumentRequest get;
  get.set_document_id("one");
  CallContext context;
  context.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  const auto read = router_->GetDocument(get, context);
  EXPECT_TRUE(read.ok()) << read.status();
  for (std::thread& writer : writers) writer.join();
}

TEST_F(ReplicaTest, AReplicaWhoseStoreDidNotOpenTriesAgain) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  members_.at("b")->shard().CloseLocal();  // as after an opening that failed
  Write("two", "xx");
  WaitForInSync({"a", "b"});
  ExpectEqual("a", "b");
}

// A replica that takes a copy closes its store first.
TEST_F(ReplicaTest, AStoreThatIsClosedWaitsForNoCompaction) {
  MakeCluster({"a"});
  ReplicaShard shard(*watch_, 0, "a", late_after_);
  LocalShardOptions options;
  options.store.path = folder_ / "alone";
  shard.SetLocal(*LocalShard::Open(options));
  std::promise<void> begun;
  std::thread compacting([&begun, used = *shard.local()]() mutable {
    absl::Status status = used->Compact();
    begun.set_value();
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (status.ok() && std::chrono::steady_clock::now() < end) status = used->Compact();  // as one that takes long
    // What runs is cancelled; the next call, begun between the two, is refused.
    EXPECT_TRUE(absl::IsCancelled(status) || ReasonOf(status) == Reason::kShardUnavailable) << status;
    used.reset();
  });
  begun.get_future().wait();
  shard.CloseLocal();
  compacting.join();
}

TEST_F(ReplicaTest, AClosedStoreCanBeOpenedAtOnce) {
  MakeCluster({"a"});
  ReplicaShard shard(*watch_, 0, "a", late_after_);
  LocalShardOptions options;
  options.store.path = folder_ / "alone";
  for (int i = 0; i < 20; ++i) {
    shard.SetLocal(*LocalShard::Open(options));
    std::thread user([used = *shard.local()]() mutable {
      std::this_thread::sleep_for(milliseconds(10));
      used.reset();  // the last one, so that it is closed here
    });
    shard.CloseLocal();
    EXPECT_TRUE(LocalShard::Open(options).ok());
    user.join();
  }
}

TEST_F(ReplicaTest, AReplicaThatIsDownIsDroppedAndCatchesUp) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  Write("two", "xx");  // is acknowledged once b has been dropped
  WaitForInSync({"a"});
  Write("one", "xxx");
  StartMember("b");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(*ReadOn("b", "one"), "xxx");
  ExpectEqual("a", "b");
}

TEST_F(ReplicaTest, TooFewReplicasRefuseWritesAndReadsGoOn) {
  MakeCluster({"a", "b"}, /*min_in_sync=*/2);
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  EXPECT_EQ(ReasonOf(TryWrite("two", "xx")), Reason::kWriteOutcomeUnknown);
  WaitForInSync({"a"});
  EXPECT_EQ(ReasonOf(TryWrite("three", "xx")), Reason::kShardUnavailable);
  EXPECT_EQ(*ReadOn("a", "one"), "x");
  StartMember("b");
  Write("three", "xx");
}

TEST_F(ReplicaTest, AWipedReplicaTakesACopyWhenTheLogIsShort) {
  log_changes_max_ = 5;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  for (int i = 0; i < 40; ++i) Write(StrCat("d", i % 15), std::string(1 + i, 'x'));
  StopMember("b");
  std::filesystem::remove_all(folder_ / "b");
  StartMember("b");
  WaitUntil("dropped and back", [&] {
    const auto read = ReadOn("b", "d1");
    if (read.ok()) return true;
    EXPECT_EQ(ReasonOf(read.status()), Reason::kShardUnavailable) << read.status();
    return false;
  });
  WaitForInSync({"a", "b"});
  Write("last", "x");
  ExpectEqual("a", "b");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "b/incoming"));
}

TEST_F(ReplicaTest, AnotherIsPromotedAndTheOldPrimaryFollows) {
  late_after_ = kNever;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  EXPECT_TRUE(members_.at("b")->replica().Promote().ok());
  Write("one", "xx");  // through the old epoch's router
  EXPECT_EQ(watch_->Get()->shards[0].primary, "b");
  WaitForInSync({"a", "b"});
  Write("two", "xxx");
  ExpectEqual("a", "b");
}

TEST_F(ReplicaTest, WithThePrimaryDownReadsGoOnAndWritesWaitForAPromotion) {
  late_after_ = kNever;
  MakeCluster({"a", "b", "c"});
  WaitForInSync({"a", "b", "c"});
  Write("one", "x");
  StopMember("a");
  shardpb::GetDocumentRequest get;
  get.set_document_id("one");
  EXPECT_TRUE(router_->GetDocument(get, CallContext()).ok());
  WaitUntil("the router knows that it is gone",
            [&] { return ReasonOf(TryWrite("two", "x")) == Reason::kShardUnavailable; });
  ASSERT_TRUE(members_.at("b")->replica().Promote().ok());
  Write("two", "xx");
  StartMember("a");
  WaitForInSync({"a", "b", "c"});
  ExpectEqual("a", "b");
  ExpectEqual("b", "c");
}

TEST_F(ReplicaTest, AReplicaThatIsNotInSyncIsNotPromoted) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  Write("two", "x");
  WaitForInSync({"a"});
  StopMember("a");
  StartMember("b");
  EXPECT_EQ(ReasonOf(members_.at("b")->replica().Promote().status()), Reason::kBehindLog);
  EXPECT_EQ(ReasonOf(ReadOn("b", "one").status()), Reason::kShardUnavailable) << "it may be stale";
  StartMember("a");
  Write("three", "x");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(*ReadOn("b", "two"), "x");
}

// What a primary wrote and nobody else has was never acknowledged; when another was promoted meanwhile, it is
// discarded.
TEST_F(ReplicaTest, ADivergedPrimaryTakesACopyOfTheNewOnes) {
  late_after_ = kNever;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  // The write reaches a's store alone: it ends when b is promoted, by the file alone, as b is down.
  std::thread writer([&] { EXPECT_FALSE(TryWrite("lost", "x").ok()); });
  WaitUntil("a has it", [&] { return ReadOn("a", "lost").ok(); });
  ASSERT_TRUE(UpdateClusterFile(file_, [](ClusterConfig& config) {
                config.shards[0].primary = "b";
                config.shards[0].in_sync = {"b"};
                ++config.shards[0].epoch;
                return absl::OkStatus();
              }).ok());
  writer.join();
  StartMember("b");
  Write("two", "x");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(ReadOn("a", "lost").status().code(), absl::StatusCode::kNotFound);
  ExpectEqual("a", "b");
}

TEST_F(ReplicaTest, FilesThatDisagreeStopWrites) {
  MakeCluster({"a", "b"});
  const std::string other_file = folder_ / "other.json";
  bool noticed = false;
  // Where b is too slow to answer it, a drops b, rightly, in a new version of its file; then once more.
  for (int attempt = 0; attempt < 5; ++attempt) {
    WaitForInSync({"a", "b"});
    Write("one", "x");
    StopMember("b");
    auto other = ReadClusterFile(file_);  // the same version, but b is its primary
    ASSERT_TRUE(other.ok()) << other.status();
    other->shards[0].primary = "b";
    ASSERT_TRUE(WriteFileAtomically(other_file, FormatClusterFile(*other)).ok());
    members_["b"] = std::make_unique<Member>(other_file, folder_ / "b", "b", other->shards[0].Find("b")->address, 1000,
                                             late_after_);
    ASSERT_NO_FATAL_FAILURE(WaitUntil("both notice, or a drops b", [&] {
      noticed = Refuses("a", Reason::kClusterMismatch) && Refuses("b", Reason::kClusterMismatch);
      const auto newest = ReadClusterFile(file_);
      return noticed || (newest.ok() && newest->version != other->version);
    }));
    if (noticed) break;
    StopMember("b");
    StartMember("b");
  }
  ASSERT_TRUE(noticed);
  WaitUntil("so does the router", [&] { return ReasonOf(TryWrite("two", "x")) == Reason::kClusterMismatch; });
}

TEST_F(ReplicaTest, AnOlderEpochIsRefused) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  const uint64_t epoch = watch_->Get()->shards[0].epoch;
  auto request = Document("one", "x");
  request.set_epoch(epoch - 1);
  EXPECT_EQ(ReasonOf(members_.at("a")->shard().Write(request, CallContext()).status()), Reason::kStaleEpoch);
  shardpb::DeleteRequest deletion;
  deletion.add_document_ids("one");
  deletion.set_epoch(epoch - 1);
  EXPECT_EQ(ReasonOf(members_.at("a")->shard().Delete(deletion, CallContext()).status()), Reason::kStaleEpoch);
  shardpb::PullChangesRequest pull;
  pull.set_replica("b");
  pull.set_epoch(epoch - 1);
  const auto take_none = [](const shardpb::PullChangesResponse&) { return absl::OkStatus(); };
  EXPECT_EQ(ReasonOf(members_.at("a")->replica().Pull(pull, CallContext(), take_none)), Reason::kStaleEpoch);
  pull.set_epoch(epoch);
  pull.set_replica("stranger");
  EXPECT_EQ(ReasonOf(members_.at("a")->replica().Pull(pull, CallContext(), take_none)), Reason::kClusterMismatch);
}

}  // namespace
}  // namespace retro
