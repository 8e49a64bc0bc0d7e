#include "retriever_service/cluster/cluster_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/file_lock.h"
#include "common/base/strings.h"
#include "retriever_service/cluster/cluster_watch.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr char kGood[] = R"({
  "version": 7,
  "cluster": "retro",
  "store_id": "00112233445566778899aabbccddeeff",
  "min_in_sync": 2,
  "shards": [
    {"slots": [0, 99], "epoch": 3, "primary": "a0", "in_sync": ["a0", "a1"],
     "replicas": [{"name": "a0", "address": "10.0.0.1:1"}, {"name": "a1", "address": "10.0.0.1:2"}]},
    {"slots": [100, 4095], "epoch": 1, "primary": "b0", "replicas": [{"name": "b0", "address": "10.0.0.1:3"}]}
  ]
})";

absl::StatusOr<ClusterConfig> Parse(const std::string& text) { return ParseClusterFile(text, "file.json"); }

TEST(ClusterFileTest, IsReadAndWrittenAlike) {
  const auto config = Parse(kGood);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->version, 7u);
  EXPECT_EQ(config->store_id.size(), 16u);
  EXPECT_EQ(config->store_id[1], '\x11');
  EXPECT_EQ(config->min_in_sync, 2u);
  ASSERT_EQ(config->shards.size(), 2u);
  EXPECT_EQ(config->shards[1].first_slot, 100u);
  EXPECT_EQ(config->shards[0].Find("a1")->address, "10.0.0.1:2");
  EXPECT_TRUE(config->shards[0].IsInSync("a1"));
  EXPECT_FALSE(config->shards[1].IsInSync("b0"));
  const auto again = Parse(FormatClusterFile(*config));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->Fingerprint(), config->Fingerprint());
}

// A shard that has none, as older versions know no such key, has none afterwards.
TEST(ClusterFileTest, PositionsAreKept) {
  ClusterConfig config = *Parse(kGood);
  EXPECT_EQ(FormatClusterFile(config).find("position"), std::string::npos);
  config.shards[0].position = {3, UINT64_MAX};
  const auto again = Parse(FormatClusterFile(config));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->shards[0].position, config.shards[0].position);
  EXPECT_EQ(again->shards[1].position, std::nullopt);
}

// The key is there only while it says something: processes of an older version know no such key.
TEST(ClusterFileTest, ReadOnlyIsKept) {
  ClusterConfig config = *Parse(kGood);
  const std::string before = FormatClusterFile(config);
  EXPECT_EQ(before.find("read_only"), std::string::npos);
  config.shards[1].read_only = true;
  const auto again = Parse(FormatClusterFile(config));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->shards[0].read_only);
  EXPECT_TRUE(again->shards[1].read_only);
  EXPECT_NE(again->Fingerprint(), Parse(before)->Fingerprint());
}

TEST(ClusterFileTest, WhatIsWrongIsNamed) {
  const std::vector<std::array<std::string, 3>> cases = {
      {"\"version\": 7", "\"version\": 0", "version"},
      {"\"version\": 7", "\"version\": \"7\"", "version"},
      {"\"version\": 7,", "", "version"},
      {"\"cluster\": \"retro\"", "\"cluster\": \"\"", "cluster"},
      {"\"cluster\"", "\"clutser\"", "clutser"},
      {"00112233", "0011223x", "store_id"},
      {"eeff", "ee", "store_id"},
      {"\"min_in_sync\": 2", "\"min_in_sync\": 0", "min_in_sync"},
      {"\\[0, 99\\]", "[0, 98]", "slot"},
      {"\\[0, 99\\]", "[0, 100]", "slot"},
      {"\\[0, 99\\]", "[1, 99]", "slot"},
      {"\\[0, 99\\]", "[0]", "slots"},
      {"\\[100, 4095\\]", "[100, 4094]", "4095"},
      {"\\[100, 4095\\]", "[100, 4096]", "slots"},
      {"\\[100, 4095\\]", "[100, 99]", "slots"},
      {"\"epoch\": 3", "\"epoch\": -3", "epoch"},
      {"\"epoch\": 1", "\"epoch\": 2", "in_sync"},
      {"\"epoch\": 3", "\"epoch\": 1", "in_sync"},
      {"\"primary\": \"a0\"", "\"primary\": \"a2\"", "primary"},
      {"\"primary\": \"a0\"", "\"primary\": \"a0\", \"read_only\": 1", "read_only"},
      {"\"primary\": \"a0\"", "\"primary\": \"a0\", \"position\": [3]", "position"},
      {"\"primary\": \"a0\"", "\"primary\": \"a0\", \"position\": [3, -1]", "position"},
      {"\\[\"a0\", \"a1\"\\]", "[\"a1\"]", "primary"},
      {"\\[\"a0\", \"a1\"\\]", "[\"a0\", \"a2\"]", "in_sync"},
      {"\\[\"a0\", \"a1\"\\]", "[\"a0\", \"a0\"]", "in_sync"},
      {"\"primary\": \"b0\", \"replicas\": \\[\\{\"name\": \"b0\"",
       "\"primary\": \"a1\", \"replicas\": [{\"name\": \"a1\"", "a1"},
      {"10.0.0.1:3", "10.0.0.1:2", "10.0.0.1:2"},
      {"\"name\": \"b0\", ", "", "replicas\\[0\\]"},
      {"\"shards\"", "\"shard\"", "shard"},
      {"^\\{", "[", "object"},
  };
  for (const auto& [what, by, named] : cases) {
    const std::string text = std::regex_replace(kGood, std::regex(what), by, std::regex_constants::format_first_only);
    ASSERT_NE(text, kGood) << what;
    const auto config = Parse(text);
    ASSERT_FALSE(config.ok()) << what << " -> " << by;
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(MessageOf(config.status())), testing::HasSubstr("file.json"));
    EXPECT_TRUE(std::regex_search(std::string(MessageOf(config.status())), std::regex(named))) << config.status();
  }
}

class ClusterWatchTest : public testing::Test {
 protected:
  void Write(const std::string& text) { ASSERT_TRUE(WriteFileAtomically(path_, text).ok()); }
  static std::string Changed(const std::string& what, const std::string& by) {
    return std::regex_replace(kGood, std::regex(what), by, std::regex_constants::format_first_only);
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_ / "cluster.json";
};

TEST_F(ClusterWatchTest, TakesNewerStatesAlone) {
  EXPECT_FALSE(ClusterWatch::Start(path_).ok());
  Write(kGood);
  const auto watch = ClusterWatch::Start(path_);
  ASSERT_TRUE(watch.ok()) << watch.status();
  const auto version_after = [&](const std::string& text) {
    Write(text);
    (*watch)->Reload();
    return (*watch)->Get()->version;
  };
  EXPECT_EQ(version_after(Changed("\"version\": 7", "\"version\": 8")), 8u);
  EXPECT_EQ(version_after("{"), 8u);
  EXPECT_EQ(version_after(kGood), 8u) << "an older one";
  EXPECT_EQ(version_after(Changed("\"version\": 7", "\"version\": 9")), 9u);
  const std::string same_version = std::regex_replace(Changed("\"version\": 7", "\"version\": 9"),
                                                      std::regex("\"min_in_sync\": 2"), "\"min_in_sync\": 1");
  EXPECT_EQ(version_after(same_version), 9u);
  EXPECT_EQ((*watch)->Get()->min_in_sync, 2u) << "changed without a new version";
  const std::string other_slots = std::regex_replace(
      std::regex_replace(Changed("\"version\": 7", "\"version\": 10"), std::regex("\\[0, 99\\]"), "[0, 98]"),
      std::regex("\\[100,"), "[99,");
  ASSERT_TRUE(Parse(other_slots).ok());
  EXPECT_EQ(version_after(other_slots), 9u) << "slots may not move while it runs";
}

TEST_F(ClusterWatchTest, NoticesByItself) {
  Write(kGood);
  const auto watch = ClusterWatch::Start(path_);
  ASSERT_TRUE(watch.ok());
  std::atomic<int> changes = 0;
  (*watch)->SetListener([&] { ++changes; });
  Write(Changed("\"version\": 7", "\"version\": 8"));
  while (changes == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ((*watch)->Get()->version, 8u);
  (*watch)->SetListener({});
}

TEST_F(ClusterWatchTest, UpdatesOfSeveralProcessesAllCount) {
  Write(kGood);
  constexpr int kWatches = 4, kUpdates = 25;
  std::vector<std::thread> threads;
  threads.reserve(kWatches);
  for (int i = 0; i < kWatches; ++i) {
    threads.emplace_back([&] {
      auto watch = ClusterWatch::Start(path_);
      ASSERT_TRUE(watch.ok());
      for (int n = 0; n < kUpdates; ++n) {
        ASSERT_TRUE((*watch)
                        ->Update([](ClusterConfig& config) {
                          ++config.shards[0].epoch;
                          return absl::OkStatus();
                        })
                        .ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto config = ReadClusterFile(path_);
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->shards[0].epoch, 3u + kWatches * kUpdates);
  EXPECT_EQ(config->version, 7u + kWatches * kUpdates);
  const absl::Status refused = UpdateClusterFile(path_, [](ClusterConfig& changed) {
                                 changed.version = 1;
                                 return absl::InternalError("no");
                               }).status();
  EXPECT_EQ(refused.message(), "no");
  EXPECT_EQ(ReadClusterFile(path_)->version, config->version);
}

TEST_F(ClusterWatchTest, WhoeverKeepsTheLockIsNotWaitedForWithoutEnd) {
  Write(kGood);
  const auto change = [](ClusterConfig&) { return absl::OkStatus(); };
  {
    const auto lock = FileLock::Take(path_ + ".lock");  // by a process that stands still, say
    ASSERT_TRUE(lock.ok());
    const absl::Status status = UpdateClusterFile(path_, change, std::chrono::milliseconds(20)).status();
    EXPECT_EQ(ReasonOf(status), Reason::kShardUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(path_ + ".lock"));
  }
  EXPECT_TRUE(UpdateClusterFile(path_, change).ok());
}

}  // namespace
}  // namespace retro
