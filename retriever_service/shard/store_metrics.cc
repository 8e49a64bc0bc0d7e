#include "retriever_service/shard/store_metrics.h"

#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

namespace retro {
namespace {

class Gauges {
 public:
  Gauges(Metrics& metrics, prometheus::Labels labels) : metrics_(metrics), labels_(std::move(labels)) {}

  template <typename Value>
  void Set(const char* name, const char* help, Value value, const prometheus::Labels& more = {}) const {
    prometheus::Labels labels = labels_;
    labels.insert(more.begin(), more.end());
    metrics_.Gauge(name, help, labels).Set(static_cast<double>(value));
  }

 private:
  Metrics& metrics_;
  const prometheus::Labels labels_;
};

// One of a collection.
struct CollectionGauge {
  const char* name;
  const char* help;
  std::optional<double> value;
};

std::vector<CollectionGauge> GaugesOf(const pb::CollectionStats& collection) {
  uint64_t memory = collection.document_memory_bytes() + collection.building_memory_bytes();
  uint64_t deleted = 0;
  for (const pb::SegmentStats& segment : collection.segments()) {
    memory += segment.memory_bytes();
    deleted += segment.deleted();
  }
  std::optional<double> recall;
  if (collection.has_measured_recall()) recall = collection.measured_recall();
  return {
      {"retro_store_documents", "Documents.", collection.documents()},
      {"retro_index_chunks", "Chunks that can be found.", collection.chunks()},
      {"retro_index_memory_bytes", "Bytes of memory of the index.", memory},
      {"retro_index_segments", "Segments, the growing one included.", collection.segments_size()},
      {"retro_index_deleted", "Deleted chunks that segments still hold.", deleted},
      {"retro_index_recall", "recall@10 at effort 0.5 against exact search, as last measured on a sample.", recall},
      {"retro_index_state", "1 exact, 2 training, 3 ready, 4 rebuilding.", collection.index_state()},
      {"retro_index_generation", "Grows whenever segments are swapped.", collection.index_generation()},
  };
}

prometheus::Labels LabelsOf(const std::string& shard, const std::string& collection) {
  return {{"shard", shard}, {"collection", collection}};
}

}  // namespace

void StoreMetrics::Set(const pb::ShardStats& stats, std::optional<int64_t> newest_snapshot_s) {
  const std::string shard = std::to_string(stats.shard());
  const Gauges gauges(metrics_, {{"shard", shard}});
  gauges.Set("retro_store_position", "Number of the newest change.", stats.position());
  gauges.Set("retro_store_disk_bytes", "Bytes of the store on disk.", stats.disk_bytes());
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder_, error);
  if (!error) gauges.Set("retro_store_disk_free_bytes", "Bytes that the store's disk has left.", space.available);
  const std::pair<const char*, uint64_t> memory[] = {{"cache", stats.memory().cache_bytes()},
                                                     {"write_buffers", stats.memory().write_buffer_bytes()},
                                                     {"tables", stats.memory().table_bytes()}};
  for (const auto& [kind, bytes] : memory) {
    gauges.Set("retro_store_memory_bytes", "Bytes of memory of the store itself.", bytes, {{"kind", kind}});
  }
  gauges.Set("retro_store_read_only", "1 while writes are refused.", stats.read_only());
  constexpr char kNewest[] = "retro_snapshot_newest_timestamp_seconds";
  if (newest_snapshot_s.has_value()) {
    gauges.Set(kNewest, "When the newest snapshot was made, in seconds since 1970.", *newest_snapshot_s);
  } else {
    metrics_.RemoveGauge(kNewest, {{"shard", shard}});
  }
  const MutexLock lock(mutex_);
  std::set<std::string> gone = std::exchange(collections_, {});
  for (const pb::CollectionStats& collection : stats.collections()) {
    gone.erase(collection.collection());
    collections_.insert(collection.collection());
    const Gauges own(metrics_, LabelsOf(shard, collection.collection()));
    for (const auto& [name, help, value] : GaugesOf(collection)) {
      if (value.has_value()) own.Set(name, help, *value);
    }
  }
  for (const std::string& collection : gone) {
    for (const CollectionGauge& gauge : GaugesOf({})) {
      metrics_.RemoveGauge(gauge.name, LabelsOf(shard, collection));
    }
  }
}

}  // namespace retro
