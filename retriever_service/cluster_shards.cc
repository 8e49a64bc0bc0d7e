#include "retriever_service/cluster_shards.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/status_macros.h"
#include "retriever_service/shard/remote_admin.h"
#include "retriever_service/shard/shard_channel.h"

namespace retro {
namespace {

constexpr std::chrono::milliseconds kLookEvery{100};

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterShards>> ClusterShards::Start(const std::string& cluster_file,
                                                                    const ClientSecurity& security, Metrics& metrics) {
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<ClusterWatch> watch, ClusterWatch::Start(cluster_file));
  RETRO_RETURN_IF_ERROR(CheckShardSecurity(*watch->Get(), security));
  std::unique_ptr<ClusterShards> cluster(new ClusterShards(std::move(watch), security));
  const ClusterView view = {[watch = cluster->watch_.get()] { return watch->Get(); },
                            [watch = cluster->watch_.get()] { watch->Reload(); }, security};
  const size_t count = view.get()->shards.size();
  for (uint32_t i = 0; i < count; ++i) {
    auto shard = std::make_unique<RemoteShard>(i, view, metrics);
    cluster->shards_.push_back(shard.get());
    cluster->made_.push_back(std::move(shard));
  }
  return cluster;
}

std::unique_ptr<ShardMap> ClusterShards::MakeMap() {
  const auto config = watch_->Get();
  std::vector<uint32_t> last_slots;
  for (const ShardConfig& shard : config->shards) last_slots.push_back(shard.last_slot);
  return ShardMap::OfCluster(std::move(made_), config->store_id, std::move(last_slots));
}

std::unique_ptr<Admin> ClusterShards::MakeAdmin() {
  return MakeRemoteAdmin([watch = watch_.get()] { return watch->Get(); }, security_);
}

void ClusterShards::WatchCoverage(const std::function<void(uint32_t answering)>& show) {
  watching_ = std::make_unique<Repeating>(kLookEvery, [this, show] {
    show(static_cast<uint32_t>(
        std::count_if(shards_.begin(), shards_.end(), [](const RemoteShard* shard) { return shard->available(); })));
  });
}

void ClusterShards::RefreshMetrics() {
  for (RemoteShard* shard : shards_) shard->RefreshMetrics();
}

}  // namespace retro
