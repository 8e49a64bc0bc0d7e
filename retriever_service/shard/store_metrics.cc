#include "retriever_service/shard/store_metrics.h"

#include <filesystem>
#include <system_error>
#include <utility>

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

void SetCollectionMetrics(const Gauges& gauges, const pb::CollectionStats& collection) {
  uint64_t memory = collection.document_memory_bytes() + collection.building_memory_bytes();
  uint64_t deleted = 0;
  for (const pb::SegmentStats& segment : collection.segments()) {
    memory += segment.memory_bytes();
    deleted += segment.deleted();
  }
  gauges.Set("retro_store_documents", "Documents.", collection.documents());
  gauges.Set("retro_index_chunks", "Chunks that can be found.", collection.chunks());
  gauges.Set("retro_index_memory_bytes", "Bytes of memory of the index.", memory);
  gauges.Set("retro_index_segments", "Segments, the growing one included.", collection.segments_size());
  gauges.Set("retro_index_deleted", "Deleted chunks that segments still hold.", deleted);
  if (collection.has_measured_recall()) {
    gauges.Set("retro_index_recall", "recall@10 at effort 0.5 against exact search, as last measured on a sample.",
               collection.measured_recall());
  }
  gauges.Set("retro_index_state", "1 exact, 2 training, 3 ready, 4 rebuilding.", collection.index_state());
  gauges.Set("retro_index_generation", "Grows whenever segments are swapped.", collection.index_generation());
}

}  // namespace

void SetStoreMetrics(Metrics& metrics, const pb::ShardStats& stats, const std::string& folder) {
  const std::string shard = std::to_string(stats.shard());
  const Gauges gauges(metrics, {{"shard", shard}});
  gauges.Set("retro_store_position", "Number of the newest change.", stats.position());
  gauges.Set("retro_store_disk_bytes", "Bytes of the store on disk.", stats.disk_bytes());
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (!error) gauges.Set("retro_store_disk_free_bytes", "Bytes that the store's disk has left.", space.available);
  const std::pair<const char*, uint64_t> memory[] = {{"cache", stats.memory().cache_bytes()},
                                                     {"write_buffers", stats.memory().write_buffer_bytes()},
                                                     {"tables", stats.memory().table_bytes()}};
  for (const auto& [kind, bytes] : memory) {
    gauges.Set("retro_store_memory_bytes", "Bytes of memory of the store itself.", bytes, {{"kind", kind}});
  }
  gauges.Set("retro_store_read_only", "1 while writes are refused.", stats.read_only());
  for (const pb::CollectionStats& collection : stats.collections()) {
    SetCollectionMetrics(Gauges(metrics, {{"shard", shard}, {"collection", collection.collection()}}), collection);
  }
}

}  // namespace retro
