// See ../shards.sh.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/base/worker_pool.h"
#include "common/rpc/server.h"
#include "nlohmann/json.hpp"
#include "retriever_service/index/index_folder.h"
#include "retriever_service/query/shard_map.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/shard/remote_shard.h"
#include "retriever_service/shard/shard_service.h"
#include "tests/bench/bench.h"
#include "tests/bench/store/bench_store.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

constexpr float kEffort = 0.5;
constexpr double kRecallSlack = 0.02;
constexpr size_t kUnsealedMax = 4;  // segments that wait for being sealed: bounds the memory
constexpr int kIndexThreads = 2;

// Shards with their servers, and a router's view of them.
class Served {
 public:
  Served(const std::string& folder, uint32_t count) : workers_(4, 1024) {
    ClusterConfig config;
    config.store_id = "0123456789abcdef";
    for (uint32_t i = 0; i < count; ++i) {
      LocalShardOptions options;
      options.store.path = StrCat(folder, "/", count, "-", i);
      options.store.store_id = config.store_id;
      options.store.shard = i;
      options.store.shard_count = count;
      options.default_collection.emplace().set_dimension(kBenchDimension);
      options.index.threads = kIndexThreads;
      locals_.push_back(ValueOrDie(LocalShard::Open(options)));
      services_.push_back(MakeShardService(*locals_.back(), workers_, metrics_));
      servers_.push_back(ValueOrDie(RpcServer::Start({}, {services_.back().get()})));
      ShardConfig& shard = config.shards.emplace_back();
      shard.last_slot = kSlotCount * (i + 1) / count - 1;
      shard.epoch = locals_.back()->position().epoch();
      shard.primary = StrCat("s", i);
      shard.in_sync = {shard.primary};
      shard.replicas = {{shard.primary, StrCat("127.0.0.1:", servers_.back()->port())}};
      last_slots_.push_back(shard.last_slot);
    }
    config_ = std::make_shared<const ClusterConfig>(config);
    std::vector<std::unique_ptr<Shard>> remote;
    for (uint32_t i = 0; i < count; ++i) {
      remote.push_back(std::make_unique<RemoteShard>(i, ClusterView{[this] { return config_; }, [] {}, {}}, metrics_));
    }
    map_ = ShardMap::OfCluster(std::move(remote), config.store_id, last_slots_);
  }
  ~Served() {
    map_.reset();
    servers_.clear();
    workers_.Stop();
  }

  ShardMap& map() { return *map_; }

  // Only what is not there yet.
  void Fill(const BenchVectors& vectors) {
    FillStore(vectors, *map_, [this] { WaitForIndexes(kUnsealedMax); });
    WaitForIndexes(0);
  }

 private:
  void WaitForIndexes(size_t frozen_max) {
    for (const auto& shard : locals_) OrDie(shard->WaitForIndexes(frozen_max));
  }

  Metrics metrics_;
  WorkerPool workers_;
  std::vector<std::unique_ptr<LocalShard>> locals_;
  std::vector<std::unique_ptr<grpc::Service>> services_;
  std::vector<std::unique_ptr<RpcServer>> servers_;
  std::vector<uint32_t> last_slots_;
  std::shared_ptr<const ClusterConfig> config_;
  std::unique_ptr<ShardMap> map_;
};

struct Found {
  pb::QueryResult nearest;
  double slowest_shard_us = 0;
};

Found Search(ShardMap& map, std::span<const float> vector) {
  shardpb::SearchRequest request;
  request.set_k(kBenchK);
  request.add_queries()->mutable_vector()->mutable_values()->Add(vector.begin(), vector.end());
  request.mutable_effort()->set_level(kEffort);
  std::vector<shardpb::SearchResponse> answers(map.size());
  for (const absl::Status& status : map.AskAll([&](uint32_t number, Shard&shard) -> absl::Status {
         auto answer = shard.Search(request, CallContext());
         if (!answer.ok()) return answer.status();
         answers[number] = *std::move(answer);
         return absl::OkStatus();
       })) {
    OrDie(status);
  }
  Found found;
  auto& nearest = *found.nearest.mutable_neighbours();
  for (const auto& answer : answers) {
    const double us = static_cast<double>(answer.search_time().nanos() + answer.fetch_time().nanos()) / 1000;
    found.slowest_shard_us = std::max(found.slowest_shard_us, us);
    nearest.MergeFrom(answer.results(0).neighbours());
  }
  std::ranges::sort(nearest, {}, &pb::Neighbour::distance);
  if (nearest.size() > static_cast<int>(kBenchK)) {
    nearest.DeleteSubrange(kBenchK, nearest.size() - static_cast<int>(kBenchK));
  }
  return found;
}

nlohmann::ordered_json Measure(Served& served, const BenchVectors& vectors) {
  std::vector<double> total_us, cost_us;
  int64_t right = 0;
  Search(served.map(), vectors.Query(0));  // opens connections
  for (uint32_t q = 0; q < vectors.queries(); ++q) {
    const auto start = std::chrono::steady_clock::now();
    const Found found = Search(served.map(), vectors.Query(q));
    total_us.push_back(SecondsSince(start) * 1e6);
    cost_us.push_back(total_us.back() - found.slowest_shard_us);
    right += vectors.RightOf(q, found.nearest);
  }
  return {{"bench", "shards"},
          {"shards", served.map().size()},
          {"vectors", vectors.rows()},
          {"recall", static_cast<double>(right) / (vectors.queries() * kBenchK)},
          {"search_us", Percentile(total_us, 0.5)},
          {"search_p99_us", Percentile(total_us, 0.99)},
          {"fan_out_us", Percentile(cost_us, 0.5)}};
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4 || (argc == 4 && std::string(argv[3]) != "prepare")) {
    std::fprintf(stderr, "usage: shards_bench VECTORS STORES [prepare]\n");
    return 2;
  }
  const retro::BenchVectors vectors(argv[1]);
  bool all_pass = true;
  double recall_of_one = 0;
  for (const uint32_t count : {1U, 2U, 4U}) {
    // Of an older version's index another folder is left.
    retro::Served served(retro::StrCat(argv[2], "/index-", retro::kIndexLayoutVersion), count);
    served.Fill(vectors);
    if (argc == 4) continue;
    auto row = retro::Measure(served, vectors);
    const double recall = row["recall"];
    if (count == 1) recall_of_one = recall;
    const bool pass = recall >= recall_of_one - retro::kRecallSlack;
    all_pass = all_pass && pass;
    row["ours"] = recall;
    row["peer"] = recall_of_one;
    row["peer_name"] = "one shard";
    row["ratio"] = recall / recall_of_one;
    row["pass"] = pass;
    row["valid"] = true;
    std::cout << row.dump() << std::endl;
  }
  return all_pass ? 0 : 1;
}
