// A router's shards: the cluster file, a RemoteShard each, and which of them answer.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/repeating.h"
#include "common/rpc/credentials.h"
#include "common/rpc/metrics.h"
#include "retriever_service/cluster/cluster_watch.h"
#include "retriever_service/query/shard_map.h"
#include "retriever_service/shard/admin.h"
#include "retriever_service/shard/remote_shard.h"

namespace retro {

class ClusterShards {
 public:
  // Reads the file; no shard need answer. `security` is that of calls to them. `metrics` must outlive the result.
  static absl::StatusOr<std::unique_ptr<ClusterShards>> Start(const std::string& cluster_file,
                                                              const ClientSecurity& security, Metrics& metrics);

  // Once; must not outlive this.
  std::unique_ptr<ShardMap> MakeMap();
  // Passes calls on to the shards that they name; must not outlive this.
  std::unique_ptr<Admin> MakeAdmin();

  // Tells `show` how many shards answer, at once and whenever that may have changed, until StopWatching.
  void WatchCoverage(const std::function<void(uint32_t answering)>& show);
  void StopWatching() { watching_.reset(); }

  // Before each scrape, on its thread.
  void RefreshMetrics();

 private:
  ClusterShards(std::unique_ptr<ClusterWatch> watch, const ClientSecurity& security)
      : watch_(std::move(watch)), security_(security) {}

  const std::unique_ptr<ClusterWatch> watch_;
  const ClientSecurity security_;
  std::vector<std::unique_ptr<Shard>> made_;  // until MakeMap
  std::vector<RemoteShard*> shards_;
  std::unique_ptr<Repeating> watching_;  // last: it uses all of the above
};

}  // namespace retro
