// Replicas whose disks come back empty, or older than they were.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/replica_fixture.h"

namespace retro {
namespace {

TEST_F(ReplicaTest, AWipedPrimaryRefusesToLead) {
  late_after_ = kNever;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("a");
  std::filesystem::remove_all(folder_ / "a");
  StartMember("a");
  WaitUntil("refused", [&] { return Refuses("a", Reason::kStoreDamaged); });
  ASSERT_TRUE(members_.at("b")->replica().Promote().ok());
  Write("two", "x");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(*ReadOn("a", "one"), "x");
}

TEST_F(ReplicaTest, APrimaryThatCameBackOlderRefusesToLead) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("a");
  std::filesystem::copy(folder_ / "a", folder_ / "older", std::filesystem::copy_options::recursive);
  StartMember("a");
  Write("two", "x");
  WaitForInSync({"a", "b"});  // or b, if it was dropped for being slow, need not have it
  StopMember("a");
  std::filesystem::remove_all(folder_ / "a");
  std::filesystem::rename(folder_ / "older", folder_ / "a");
  StartMember("a");
  WaitUntil("refused", [&] { return Refuses("a", Reason::kStoreDamaged); });
  EXPECT_EQ(*ReadOn("b", "two"), "x");
  ASSERT_TRUE(members_.at("b")->replica().Promote().ok());
  Write("three", "x");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(*ReadOn("a", "two"), "x");
  ExpectEqual("a", "b");
}

// Nobody can say that it has more; the cluster file can.
TEST_F(ReplicaTest, APrimaryThatCameBackOlderRefusesToLeadAlone) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("a");
  std::filesystem::copy(folder_ / "a", folder_ / "older", std::filesystem::copy_options::recursive);
  StartMember("a");
  StopMember("b");
  Write("two", "x");  // which drops b
  StartMember("b");
  WaitForInSync({"a", "b"});
  StopMember("a");
  StopMember("b");
  std::filesystem::remove_all(folder_ / "a");
  std::filesystem::copy(folder_ / "older", folder_ / "a", std::filesystem::copy_options::recursive);
  StartMember("a");
  WaitUntil("refused", [&] { return Refuses("a", Reason::kStoreDamaged); });
  EXPECT_EQ(watch_->Get()->shards[0].in_sync.size(), 2u) << "b, who has it, was not dropped";
  StartMember("b");
  ASSERT_TRUE(members_.at("b")->replica().Promote().ok());
  Write("three", "x");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(*ReadOn("a", "two"), "x");
}

// All disks are gone, and the primary's is put back as it was some time ago.
TEST_F(ReplicaTest, ATokenOfALostWriteIsRefusedHoweverManyFollow) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  const shardpb::Position kept = PositionOf("a");
  StopMember("a");
  std::filesystem::copy(folder_ / "a", folder_ / "older", std::filesystem::copy_options::recursive);
  StartMember("a");
  Write("two", "x");
  const shardpb::Position lost = PositionOf("a");
  StopMember("a");
  StopMember("b");
  std::filesystem::remove_all(folder_ / "a");
  std::filesystem::remove_all(folder_ / "b");
  std::filesystem::rename(folder_ / "older", folder_ / "a");
  StartMember("a");
  ASSERT_TRUE(members_.at("a")->replica().Promote().ok());
  do {
    Write("three", StrCat(PositionOf("a").number()));
  } while (PositionOf("a").number() < lost.number());
  StartMember("b");
  Write("four", "x");
  WaitForInSync({"a", "b"});
  for (const std::string name : {"a", "b"}) {
    EXPECT_TRUE(ReadAfter(name, kept).ok()) << name;
    EXPECT_TRUE(ReadAfter(name, PositionOf("a")).ok()) << name;
    const absl::Status status = ReadAfter(name, lost);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << name << ": " << status;
    EXPECT_EQ(ReasonOf(status), Reason::kForeignStore) << name << ": " << status;
  }
}

}  // namespace
}  // namespace retro
