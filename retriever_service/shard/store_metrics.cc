#include "retriever_service/shard/store_metrics.h"

#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

namespace retro {

struct StoreMetrics::Values {
  struct Value {
    const char* name;
    const char* help;
    prometheus::Labels labels;
    double value;
  };

  template <typename Number>
  void Add(const char* name, const char* help, Number value, const prometheus::Labels& more = {}) {
    Value& added = all.emplace_back(Value{name, help, {{"shard", shard}}, static_cast<double>(value)});
    added.labels.insert(more.begin(), more.end());
  }
  void AddCollection(const pb::CollectionStats& collection);

  const std::string shard;
  std::vector<Value> all;
};

void StoreMetrics::Values::AddCollection(const pb::CollectionStats& collection) {
  uint64_t memory = collection.document_memory_bytes() + collection.building_memory_bytes();
  uint64_t deleted = 0;
  for (const pb::SegmentStats& segment : collection.segments()) {
    memory += segment.memory_bytes();
    deleted += segment.deleted();
  }
  const prometheus::Labels own = {{"collection", collection.collection()}};
  Add("retro_store_documents", "Documents.", collection.documents(), own);
  Add("retro_index_chunks", "Chunks that can be found.", collection.chunks(), own);
  Add("retro_index_memory_bytes", "Bytes of memory of the index.", memory, own);
  Add("retro_index_segments", "Segments, the growing one included.", collection.segments_size(), own);
  Add("retro_index_deleted", "Deleted chunks that segments still hold.", deleted, own);
  if (collection.has_measured_recall()) {
    Add("retro_index_recall", "recall@10 at effort 0.5 against exact search, as last measured on a sample.",
        collection.measured_recall(), own);
  }
  Add("retro_index_state", "1 exact, 2 training, 3 ready, 4 rebuilding.", collection.index_state(), own);
  Add("retro_index_generation", "Grows whenever segments are swapped.", collection.index_generation(), own);
}

void StoreMetrics::Set(const pb::ShardStats& stats, std::optional<int64_t> newest_snapshot_s) {
  Values values{std::to_string(stats.shard()), {}};
  AddDisk(values);
  values.Add("retro_store_position", "Number of the newest change.", stats.position());
  values.Add("retro_store_disk_bytes", "Bytes of the store on disk.", stats.disk_bytes());
  const std::pair<const char*, uint64_t> memory[] = {{"cache", stats.memory().cache_bytes()},
                                                     {"write_buffers", stats.memory().write_buffer_bytes()},
                                                     {"tables", stats.memory().table_bytes()}};
  for (const auto& [kind, bytes] : memory) {
    values.Add("retro_store_memory_bytes", "Bytes of memory of the store itself.", bytes, {{"kind", kind}});
  }
  values.Add("retro_store_read_only", "1 while writes are refused.", stats.read_only());
  if (newest_snapshot_s.has_value()) {
    values.Add("retro_snapshot_newest_timestamp_seconds", "When the newest snapshot was made, in seconds since 1970.",
               *newest_snapshot_s);
  }
  for (const pb::CollectionStats& collection : stats.collections()) values.AddCollection(collection);
  Show(values);
}

void StoreMetrics::SetNone(uint32_t shard) {
  Values values{std::to_string(shard), {}};
  AddDisk(values);
  Show(values);
}

void StoreMetrics::AddDisk(Values& values) const {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder_, error);
  if (error) return;
  values.Add("retro_store_disk_free_bytes", "Bytes that the store's disk has left.", space.available);
}

void StoreMetrics::Show(const Values& values) {
  const MutexLock lock(mutex_);
  Shown before = std::exchange(shown_, {});
  for (const auto& [name, help, labels, value] : values.all) {
    metrics_.Gauge(name, help, labels).Set(value);
    before.erase({name, labels});
    shown_.emplace(name, labels);
  }
  for (const auto& [name, labels] : before) metrics_.RemoveGauge(name, labels);
}

}  // namespace retro
