// See ../shards.sh.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/base/worker_pool.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "common/rpc/server.h"
#include "nlohmann/json.hpp"
#include "retriever_service/query/shard_map.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/shard/remote_shard.h"
#include "retriever_service/shard/shard_service.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kDimension = 384;
constexpr uint32_t kCentres = 1000;
constexpr float kSpread = 0.5;  // of a cluster, relative to the distance between centres
constexpr int kChunksADocument = 50;
constexpr uint32_t kK = 10;
constexpr float kEffort = 0.5;
constexpr double kRecallSlack = 0.02;
constexpr uint32_t kSeed = 4711;

template <typename T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::cerr << value.status() << '\n';
  std::exit(1);
}

class Mixture {
 public:
  Mixture() : random_(kSeed) {
    for (auto& centre : centres_) {
      for (float& x : centre) x = normal_(random_);
    }
  }
  std::vector<float> Draw() {
    const auto& centre = centres_[random_() % kCentres];
    std::vector<float> vector(kDimension);
    float norm = 0;
    for (uint32_t d = 0; d < kDimension; ++d) {
      vector[d] = centre[d] + kSpread * normal_(random_);
      norm += vector[d] * vector[d];
    }
    for (float& x : vector) x /= std::sqrt(norm);
    return vector;
  }

 private:
  std::mt19937 random_;
  std::normal_distribution<float> normal_;
  std::vector<std::vector<float>> centres_{kCentres, std::vector<float>(kDimension)};
};

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
      options.default_collection.emplace().set_dimension(kDimension);
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

  void Fill(uint64_t vectors) {
    Mixture mixture;
    for (uint64_t first = 0; first < vectors; first += kChunksADocument) {
      shardpb::WriteRequest request;
      shardpb::DocumentChange& change = *request.add_changes();
      change.mutable_document()->set_id(StrCat("d", first));
      change.mutable_document()->set_text(std::string(kChunksADocument, 'x'));
      change.set_content_hash(ContentHash(change.document()));
      change.set_text_hash(TextHash(change.document().text()));
      for (int i = 0; i < kChunksADocument; ++i) {
        change.add_chunks()->set_end(i + 1);
        change.mutable_chunks(i)->set_vector_fp16(ToHalf(mixture.Draw()));
      }
      const uint32_t number = map_->ShardOfDocument(change.document().id());
      ValueOrDie(locals_[number]->Write(request, CallContext()));
    }
    for (const auto& shard : locals_) WaitUntilSealed(*shard);
  }

 private:
  static void WaitUntilSealed(LocalShard& shard) {
    uint64_t before = 0;
    for (int quiet = 0; quiet < 20; ++quiet) {  // no segment swapped for two seconds
      const uint64_t generation = ValueOrDie(shard.Stats({}, {})).stats().collections(0).index_generation();
      if (std::exchange(before, generation) != generation) quiet = 0;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
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
  std::vector<std::pair<float, std::string>> nearest;
  double slowest_shard_us = 0;
};

Found Search(ShardMap& map, const std::vector<float>& vector, bool exact) {
  shardpb::SearchRequest request;
  request.set_k(kK);
  request.add_queries()->mutable_vector()->mutable_values()->Add(vector.begin(), vector.end());
  if (!exact) request.mutable_effort()->set_level(kEffort);
  std::vector<shardpb::SearchResponse> answers(map.size());
  for (const absl::Status& status : map.AskAll([&](uint32_t number, Shard&shard) -> absl::Status {
         auto answer = shard.Search(request, CallContext());
         if (!answer.ok()) return answer.status();
         answers[number] = *std::move(answer);
         return absl::OkStatus();
       })) {
    if (!status.ok()) ValueOrDie<int>(status);
  }
  Found found;
  for (const auto& answer : answers) {
    const double us = static_cast<double>(answer.search_time().nanos() + answer.fetch_time().nanos()) / 1000;
    found.slowest_shard_us = std::max(found.slowest_shard_us, us);
    for (const pb::Neighbour& n : answer.results(0).neighbours()) {
      found.nearest.emplace_back(n.distance(), StrCat(n.document_id(), "#", n.chunk().chunk_number()));
    }
  }
  std::sort(found.nearest.begin(), found.nearest.end());
  found.nearest.resize(std::min<size_t>(found.nearest.size(), kK));
  return found;
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

nlohmann::ordered_json Measure(const std::string& folder, uint32_t count, uint64_t vectors, int queries) {
  Served served(folder, count);
  served.Fill(vectors);
  Mixture mixture;
  for (uint64_t i = 0; i < vectors; ++i) mixture.Draw();  // queries are none of what is stored
  std::vector<double> total_us, cost_us;
  uint64_t right = 0;
  for (int q = 0; q < queries; ++q) {
    const std::vector<float> query = mixture.Draw();
    const auto start = Clock::now();
    const Found found = Search(served.map(), query, /*exact=*/false);
    total_us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    cost_us.push_back(total_us.back() - found.slowest_shard_us);
    std::set<std::string> exact;
    for (const auto& [distance, id] : Search(served.map(), query, /*exact=*/true).nearest) exact.insert(id);
    for (const auto& [distance, id] : found.nearest) right += exact.count(id);
  }
  return {{"bench", "shards"},
          {"shards", count},
          {"vectors", vectors},
          {"recall", static_cast<double>(right) / (queries * static_cast<double>(kK))},
          {"search_us", Median(total_us)},
          {"fan_out_us", Median(cost_us)}};
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: shards_bench FOLDER VECTORS QUERIES\n");
    return 2;
  }
  const uint64_t vectors = std::stoull(argv[2]);
  const int queries = std::stoi(argv[3]);
  bool all_pass = true;
  double recall_of_one = 0;
  for (const uint32_t count : {1U, 2U, 4U}) {
    auto row = retro::Measure(argv[1], count, vectors, queries);
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
