// What the process that holds a store shows of it and of its indexes; docs/metrics.md lists it.
#pragma once

#include <string>

#include "common/document/protos.h"
#include "common/rpc/metrics.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

// Sets the gauges retro_store_* and retro_index_*; before each scrape, on its thread. `folder` is the store's.
void SetStoreMetrics(Metrics& metrics, const pb::ShardStats& stats, const std::string& folder);

}  // namespace retro
