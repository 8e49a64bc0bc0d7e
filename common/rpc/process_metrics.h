// What an operator watches of any process, under the names that Prometheus' own client libraries give it: memory, open
// files, threads, start.
#pragma once

#include "common/rpc/metrics.h"

namespace retro {

// Before the MetricsServer is started. What /proc does not tell is not set.
void WatchProcess(Metrics& metrics);

}  // namespace retro
