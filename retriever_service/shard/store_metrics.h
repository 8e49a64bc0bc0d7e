// What the process that holds a store shows of it and of its indexes; docs/metrics.md lists it.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "common/base/sync.h"
#include "common/document/protos.h"
#include "common/rpc/metrics.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

// The gauges retro_store_* and retro_index_* of one store, and retro_snapshot_*. Any thread.
class StoreMetrics {
 public:
  // `metrics` must outlive this; `folder` is the store's.
  StoreMetrics(Metrics& metrics, std::string folder) : metrics_(metrics), folder_(std::move(folder)) {}

  // Before each scrape.
  void Set(const pb::ShardStats& stats, std::optional<int64_t> newest_snapshot_s) ABSL_LOCKS_EXCLUDED(mutex_);
  // Likewise while there is no store, as when its replica takes a copy: only the space of the disk is shown.
  void SetNone(uint32_t shard) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Shown = std::set<std::pair<std::string, prometheus::Labels>>;  // name and labels
  struct Values;

  void AddDisk(Values& values) const;
  // What was shown before and is not among these is shown no more.
  void Show(const Values& values) ABSL_LOCKS_EXCLUDED(mutex_);

  Metrics& metrics_;
  const std::string folder_;
  Mutex mutex_;
  Shown shown_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace retro
