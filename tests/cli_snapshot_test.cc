// retro snapshot create --keep against a fake retriever: what is deleted, and what never is.
#include <string>
#include <vector>

#include "cli/exit_code.h"
#include "common/base/strings.h"
#include "common/document/snapshot_name.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli_fixture.h"

namespace retro::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CliSnapshotTest : public CliTest {
 protected:
  CliSnapshotTest() { retriever_.shard_count = 2; }

  admin::v1::Snapshot& Add(uint32_t shard, int time, const std::string& store_id = "store-1") {
    return server_.admin.AddSnapshot(Name(shard, time, store_id), shard, time);
  }
  static std::string Name(uint32_t shard, int time, const std::string& store_id = "store-1") {
    return StrCat(SnapshotNamePrefix(store_id, shard), time);
  }
  std::vector<std::string> Listed() const {
    std::vector<std::string> names;
    for (const auto& snapshot : server_.admin.snapshots) names.push_back(snapshot.name());
    return names;
  }
};

TEST_F(CliSnapshotTest, KeepsTheNewestOfEachShard) {
  for (const int time : {10, 20, 30}) Add(0, time);
  Add(1, 15);
  const Result result = Run({"snapshot", "create", "--keep", "2"});
  EXPECT_EQ(result.code, kOk) << result.err;
  EXPECT_EQ(result.out,
            StrCat(Name(0, 100), "\n", Name(1, 100), "\ndeleted ", Name(0, 20), "\ndeleted ", Name(0, 10), "\n"));
  EXPECT_THAT(Listed(), ElementsAre(Name(1, 100), Name(0, 100), Name(0, 30), Name(1, 15)));
  server_.admin.now = 200;
  const Result json = Run({"snapshot", "create", "--keep", "1", "--shard", "1", "--json"});
  EXPECT_THAT(json.out, HasSubstr(StrCat("{\"deleted\":{\"name\":\"", Name(1, 100), "\"")));
  EXPECT_THAT(Listed(), ElementsAre(Name(1, 200), Name(0, 100), Name(0, 30))) << "of shard 0 none was made";
}

TEST_F(CliSnapshotTest, AnOperationIsAskedForUntilTheRouterThatHasItIsFound) {
  server_.admin.asked_elsewhere = 3;
  const Result result = Run({"snapshot", "create", "--shard", "0"});
  EXPECT_EQ(result.code, kOk) << result.err;
  EXPECT_EQ(server_.admin.asked_elsewhere, 0);
}

TEST_F(CliSnapshotTest, DeletesNothingIfItIsNotToldTo) {
  for (const int time : {10, 20, 30}) Add(0, time);
  EXPECT_EQ(Run({"snapshot", "create"}).code, kOk);
  EXPECT_EQ(server_.admin.snapshots.size(), 5U);
  for (const char* keep : {"0", "-1", "x"}) {
    EXPECT_EQ(Run({"snapshot", "create", "--keep", keep}).code, kUsage) << keep;
  }
  EXPECT_EQ(server_.admin.snapshots.size(), 5U);
}

TEST_F(CliSnapshotTest, DeletesNothingIfThatOfOneShardFails) {
  for (const uint32_t shard : {0, 1}) Add(shard, 10);
  server_.admin.failing_shard = 1;
  const Result result = Run({"snapshot", "create", "--keep", "1"});
  EXPECT_EQ(result.code, kFailed);
  EXPECT_EQ(result.out, StrCat(Name(0, 100), "\n"));
  EXPECT_THAT(result.err, HasSubstr("the disk is full"));
  EXPECT_THAT(Listed(), ElementsAre(Name(0, 100), Name(1, 10), Name(0, 10)));
}

TEST_F(CliSnapshotTest, NeverTouchesThoseOfOtherStoresAndShards) {
  const std::vector<std::string> others = {
      Add(2, 40).name(),
      Add(0, 30, "another").name(),
      Add(0, 20).name(),
      Add(1, 10).name(),
      server_.admin.AddSnapshot("20261126-000000-shard0-1.1-1", 0, 5).name(),
  };
  for (admin::v1::Snapshot& snapshot : server_.admin.snapshots) {
    if (snapshot.name() == Name(0, 20)) snapshot.set_last_slot(2047);  // of the store before it had two shards
    if (snapshot.name() == Name(1, 10)) snapshot.set_first_slot(2048);
  }
  EXPECT_EQ(Run({"snapshot", "create", "--keep", "1"}).code, kOk);
  EXPECT_THAT(Listed(), ElementsAre(Name(1, 100), Name(0, 100), others[0], others[1], others[2], others[3], others[4]));
}

TEST_F(CliSnapshotTest, WhatItHasJustMadeIsTheNewest) {
  Add(0, 300);  // by a clock that was ahead
  server_.admin.AddSnapshot(Name(1, 100) + "-before", 1, 100);
  EXPECT_EQ(Run({"snapshot", "create", "--keep", "1"}).code, kOk);
  EXPECT_THAT(Listed(), testing::UnorderedElementsAre(Name(1, 100), Name(0, 100)));
}

TEST_F(CliSnapshotTest, DeletesNothingIfTheRetrieverLooksIntoAnotherFolder) {
  for (const int time : {10, 20}) Add(0, time);
  server_.admin.lists_what_it_makes = false;
  const Result result = Run({"snapshot", "create", "--keep", "1"});
  EXPECT_EQ(result.code, kFailed);
  EXPECT_THAT(result.err, HasSubstr("nothing deleted. Has it the --snapshot-dir of the shards?"));
  EXPECT_EQ(server_.admin.snapshots.size(), 2U);
}

}  // namespace
}  // namespace retro::cli
