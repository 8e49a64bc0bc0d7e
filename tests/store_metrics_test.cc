// What is shown of a store is what there is of it now.
#include "retriever_service/shard/store_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/rpc/metrics.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

using testing::Key;
using testing::UnorderedElementsAre;

// By name and the labels' values.
std::map<std::string, double> GaugesIn(const Metrics& metrics) {
  std::map<std::string, double> gauges;
  for (const prometheus::MetricFamily& family : metrics.Collect()) {
    for (const prometheus::ClientMetric& metric : family.metric) {
      EXPECT_NE(family.help, "") << family.name;
      std::string name = family.name;
      for (const auto& label : metric.label) name += " " + label.value;
      gauges[name] = metric.gauge.value;
    }
  }
  return gauges;
}

pb::ShardStats StatsOf(const std::vector<std::string>& collections) {
  pb::ShardStats stats;
  stats.set_shard(3);
  stats.set_position(70);
  for (const std::string& name : collections) {
    pb::CollectionStats& collection = *stats.add_collections();
    collection.set_collection(name);
    collection.set_documents(7);
  }
  return stats;
}

TEST(StoreMetricsTest, WhatIsGoneIsShownNoMore) {
  const TemporaryFolder folder;
  Metrics metrics;
  StoreMetrics shown(metrics, folder.path());
  pb::ShardStats stats = StatsOf({"a", "b"});
  stats.mutable_collections(1)->set_measured_recall(0.5);
  shown.Set(stats, std::nullopt);
  auto gauges = GaugesIn(metrics);
  EXPECT_EQ(gauges["retro_store_position 3"], 70);
  EXPECT_EQ(gauges["retro_store_documents a 3"], 7);
  EXPECT_EQ(gauges["retro_store_documents b 3"], 7);
  EXPECT_EQ(gauges["retro_index_recall b 3"], 0.5);
  EXPECT_FALSE(gauges.contains("retro_snapshot_newest_timestamp_seconds 3"));

  shown.Set(StatsOf({"b"}), 1234);
  gauges = GaugesIn(metrics);
  EXPECT_EQ(gauges["retro_store_documents b 3"], 7);
  EXPECT_EQ(gauges["retro_snapshot_newest_timestamp_seconds 3"], 1234);
  for (const char* gone : {"retro_store_documents a 3", "retro_index_state a 3", "retro_index_recall b 3"}) {
    EXPECT_FALSE(gauges.contains(gone)) << gone;
  }

  shown.SetNone(3);
  EXPECT_THAT(GaugesIn(metrics), UnorderedElementsAre(Key("retro_store_disk_free_bytes 3")));
  shown.Set(StatsOf({"a"}), std::nullopt);
  EXPECT_EQ(GaugesIn(metrics)["retro_store_documents a 3"], 7);
}

}  // namespace
}  // namespace retro
