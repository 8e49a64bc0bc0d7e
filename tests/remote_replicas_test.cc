// A shard of several replicas, of which some are slow, silent, busy, gone or taken out.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/metrics.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "retriever_service/shard/message_parts.h"
#include "retriever_service/shard/remote_shard.h"
#include "retriever_service/shard/replica_call.h"
#include "tests/free_port.h"

namespace retro {
namespace {

// Answers when it is told to.
class SlowShard final : public shardpb::ShardService::Service {
 public:
  grpc::Status Stats(grpc::ServerContext*, const shardpb::StatsRequest*, shardpb::StatsResponse*) override {
    ++stats;
    return grpc::Status::OK;
  }
  grpc::Status GetDocument(grpc::ServerContext* context, const shardpb::GetDocumentRequest*,
                           shardpb::GetDocumentResponse*) override {
    ++calls;
    if (stopping) return grpc::Status::CANCELLED;  // as gRPC's server does
    while ((slow || stopped) && !context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return grpc::Status::OK;
  }
  grpc::Status GetShardInfo(grpc::ServerContext* context, const shardpb::GetShardInfoRequest*,
                            shardpb::GetShardInfoResponse* info) override {
    ++asked;
    while (stopped && !context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (busy) return ToGrpcStatus(QueueFullError("the queue of requests", std::chrono::milliseconds(1)));
    info->set_store_id("0123456789abcdef");
    info->set_shard_count(1);
    return grpc::Status::OK;
  }
  grpc::Status Write(grpc::ServerContext* context, const shardpb::WriteRequest*, shardpb::WriteResponse*) override {
    while (slow && !context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++whole;
    if (stopping) return ToGrpcStatus(Error(absl::StatusCode::kUnavailable, Reason::kShuttingDown, "stopping"));
    if (damaged) return ToGrpcStatus(Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged, "damaged"));
    if (!stale) return grpc::Status::OK;
    return ToGrpcStatus(Error(absl::StatusCode::kFailedPrecondition, Reason::kStaleEpoch, "this replica is starting"));
  }
  grpc::Status WriteInParts(grpc::ServerContext*, grpc::ServerReader<shardpb::WriteRequest>* reader,
                            shardpb::WriteResponse*) override {
    for (shardpb::WriteRequest part; reader->Read(&part); ++parts) {
      largest_part = std::max(largest_part.load(), part.ByteSizeLong());
      if (parts == 0) epoch = part.epoch();
    }
    return grpc::Status::OK;
  }
  std::atomic<bool> slow = false, busy = false, stopped = false, stale = false, stopping = false, damaged = false;
  std::atomic<int> calls = 0, asked = 0, stats = 0, whole = 0, parts = 0;
  std::atomic<size_t> largest_part = 0, epoch = 0;
};

class ReplicasTest : public testing::Test {
 protected:
  ReplicasTest() {
    ClusterConfig config;
    config.store_id = "0123456789abcdef";
    ShardConfig& only = config.shards.emplace_back();
    only.epoch = 2;
    only.primary = "r0";
    for (size_t i = 0; i < servers_.size(); ++i) {
      Serve(i, FreePort());
      only.replicas.push_back({StrCat("r", i), StrCat("127.0.0.1:", servers_[i]->port())});
      only.in_sync.push_back(only.replicas.back().name);
    }
    config_ = std::make_shared<const ClusterConfig>(config);
    shard_ = std::make_unique<RemoteShard>(0, ClusterView{[this] { return config_; }, [] {}, {}}, metrics_);
  }
  ~ReplicasTest() override {
    for (SlowShard& service : services_) service.slow = service.stopped = false;
    shard_.reset();
  }

  void Serve(size_t replica, uint16_t port) {
    ServerOptions options;
    options.listen = StrCat("127.0.0.1:", port);
    servers_[replica] = *RpcServer::Start(options, {&services_[replica]});
  }

  std::array<SlowShard, 2> services_;
  std::array<std::unique_ptr<RpcServer>, 2> servers_;
  std::shared_ptr<const ClusterConfig> config_;
  Metrics metrics_;
  std::unique_ptr<RemoteShard> shard_;
};

TEST_F(ReplicasTest, ReadsAreShared) {
  for (int i = 0; i < 40; ++i) EXPECT_TRUE(shard_->GetDocument({}, {}).ok());
  for (SlowShard& service : services_) EXPECT_GE(service.calls, 10);
}

// It alone knows whether writes are refused.
TEST_F(ReplicasTest, StatsAreThePrimarys) {
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(shard_->Stats({}, {}).ok());
  EXPECT_EQ(services_[0].stats, 10);
  servers_[0]->Stop();
  EXPECT_TRUE(shard_->Stats({}, {}).ok());
  EXPECT_GE(services_[1].stats, 1);
}

TEST_F(ReplicasTest, ASlowOneIsNotWaitedFor) {
  services_[0].slow = true;
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(shard_->GetDocument({}, {}).ok());
  EXPECT_GE(services_[1].calls, 10);
  EXPECT_GE(metrics_.Counter("retro_shard_hedges_total", "", {{"shard", "0"}}).Value(), 1);
}

// It is asked last for as long as it answers nothing at all: each that asks it first would wait for it a while.
TEST_F(ReplicasTest, OneThatIsStoppedIsSoonAskedLast) {
  for (int i = 0; i < 40; ++i) EXPECT_TRUE(shard_->GetDocument({}, {}).ok());
  services_[0].stopped = true;
  const int before = services_[0].calls;
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(shard_->GetDocument({}, {}).ok());
  EXPECT_GE(services_[0].calls, before + 1);
  EXPECT_LE(services_[0].calls, before + 10);  // else every second; some more are asked of both, as the other was slow
  services_[0].stopped = false;
  const int back = services_[0].calls;
  while (services_[0].calls == back) EXPECT_TRUE(shard_->GetDocument({}, {}).ok());
}

TEST_F(ReplicasTest, OneThatDoesNotSayHowItIsHoldsUpNoOther) {
  services_[0].stopped = true;
  const int before = services_[0].asked;
  const int enough = services_[1].asked + 15;
  while (services_[1].asked < enough) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_LE(services_[0].asked, before + 8);  // each question waits for a second, and the others come five a second
}

TEST_F(ReplicasTest, AShardThatStandsStillDoesNotHoldItsCallers) {
  for (SlowShard& service : services_) service.stopped = true;
  while (shard_->available()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const absl::Status status = shard_->GetDocument({}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(ReasonOf(status), Reason::kShardUnavailable) << status;
  const absl::Status change = shard_->Write({}, {}).status();
  EXPECT_EQ(ReasonOf(change), Reason::kShardUnavailable) << change;
  EXPECT_THAT(std::string(MessageOf(change)), testing::HasSubstr("nothing was done"));
}

// Callers who would wait for a minute, and whose calls began before anybody knew.
TEST_F(ReplicasTest, AShardThatBeginsToStandStillLetsGoOfItsCallers) {
  for (SlowShard& service : services_) service.slow = true;
  CallContext patient;
  patient.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] {
      const absl::Status status = shard_->GetDocument({}, patient).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      EXPECT_EQ(ReasonOf(status), Reason::kShardUnavailable) << status;
      EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr("r1 at 127.0.0.1"));
    });
  }
  while (services_[0].calls < 8 || services_[1].calls < 8) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  for (SlowShard& service : services_) service.stopped = true;
  for (std::thread& caller : callers) caller.join();
  for (int i = 0; i < 100; ++i) {  // it is not even asked
    EXPECT_EQ(ReasonOf(shard_->GetDocument({}, patient).status()), Reason::kShardUnavailable);
  }
  EXPECT_EQ(services_[0].calls + services_[1].calls, 16);
  for (SlowShard& service : services_) service.slow = service.stopped = false;
  while (!shard_->GetDocument({}, patient).ok()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

TEST_F(ReplicasTest, ASlowShardThatSaysHowItIsKeepsItsCallers) {
  for (SlowShard& service : services_) service.slow = true;
  std::atomic<bool> ended = false;
  std::thread caller([&] {
    EXPECT_TRUE(shard_->GetDocument({}, {}).ok());
    ended = true;
  });
  while (services_[1].calls == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const int enough = services_[1].asked + 15;
  while (services_[1].asked < enough) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_FALSE(ended);
  for (SlowShard& service : services_) service.slow = false;
  caller.join();
}

TEST_F(ReplicasTest, OneThatIsGoneCostsNobodyAnAnswerAndIsTakenBack) {
  const uint16_t port = static_cast<uint16_t>(servers_[0]->port());
  servers_[0]->Stop();
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(shard_->GetDocument({}, {}).ok());
  EXPECT_TRUE(shard_->available());
  services_[0].calls = 0;
  Serve(0, port);
  while (services_[0].calls == 0) EXPECT_TRUE(shard_->GetDocument({}, {}).ok());
}

TEST_F(ReplicasTest, ACallersHurryIsNotHeldAgainstThem) {
  for (SlowShard& service : services_) service.slow = true;
  for (int i = 0; i < 20; ++i) {
    CallContext hurried;
    hurried.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(10 + i);
    EXPECT_FALSE(shard_->GetDocument({}, hurried).ok());
    EXPECT_TRUE(shard_->available());
  }
  for (const char* replica : {"r0", "r1"}) {
    EXPECT_EQ(metrics_.Counter("retro_replica_ejections_total", "", {{"shard", "0"}, {"replica", replica}}).Value(), 0);
  }
}

TEST_F(ReplicasTest, BusyOnesAreThere) {
  for (SlowShard& service : services_) service.busy = true;
  for (SlowShard& service : services_) {
    const int before = service.asked;
    while (service.asked < before + 3) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_TRUE(shard_->available());
}

// There is one of it, and a part.
TEST_F(ReplicasTest, ALargeWriteIsNotCopiedAsAWhole) {
  shardpb::WriteRequest request;
  shardpb::DocumentChange& change = *request.add_changes();
  for (int i = 0; i < 3000; ++i) change.add_chunks()->set_vector_fp16(std::string(1000, 'v'));
  ASSERT_TRUE(shard_->Write(request, {}).ok());
  EXPECT_EQ(services_[0].whole, 0);
  EXPECT_GE(services_[0].parts, 3);
  EXPECT_LE(services_[0].largest_part, kPartBytesMax + 1000);
  EXPECT_EQ(services_[0].epoch, config_->shards[0].epoch);
  ASSERT_TRUE(shard_->Write({}, {}).ok());
  EXPECT_EQ(services_[0].whole, 1);
}

TEST_F(ReplicasTest, AWriteWhoseAnswerIsLateMayBeRepeated) {
  services_[0].slow = true;
  CallContext hurried;
  hurried.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  const absl::Status status = shard_->Write({}, hurried).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(ReasonOf(status), Reason::kWriteOutcomeUnknown);
}

// As gRPC says it for the shard when it has no memory for what arrives.
TEST(ReplicaCallTest, OfACallThatGrpcCancelledNobodyKnowsWhatBecame) {
  const grpc::Status cancelled(grpc::StatusCode::RESOURCE_EXHAUSTED, "");
  EXPECT_EQ(ReasonOf(FromShardCall(cancelled, Effect::kChange, "a")), Reason::kWriteOutcomeUnknown);
  EXPECT_NE(ReasonOf(FromShardCall(cancelled, Effect::kRead, "a")), Reason::kWriteOutcomeUnknown);
  const grpc::Status too_old(grpc::StatusCode::UNIMPLEMENTED, "");
  EXPECT_NE(ReasonOf(FromShardCall(too_old, Effect::kChange, "a")), Reason::kWriteOutcomeUnknown);
}

// Clients know no epochs: they are told that nothing was done and that it is worth another try.
TEST_F(ReplicasTest, APrimaryThatDoesNotActYetIsWorthAnotherTry) {
  services_[0].stale = true;
  const absl::Status status = shard_->Write({}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(ReasonOf(status), Reason::kShardUnavailable);
  EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr("nothing was done"));
}

TEST_F(ReplicasTest, OneThatTakesNoWritesForDamageIsReadFrom) {
  services_[0].damaged = true;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(ReasonOf(shard_->Write({}, {}).status()), Reason::kStoreDamaged);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(shard_->GetDocument({}, {}).ok());
  EXPECT_GE(services_[0].calls, 2);
}

TEST_F(ReplicasTest, AWriteThatAStoppingPrimaryRefusesIsTriedAgain) {
  services_[0].stopping = true;
  std::thread promotion([this] {
    while (services_[0].whole < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    services_[0].stopping = false;  // as if it were another
  });
  EXPECT_TRUE(shard_->Write({}, {}).ok());
  promotion.join();
}

TEST_F(ReplicasTest, AReadThatAStoppingServerCancelsIsAskedOfAnother) {
  services_[0].stopping = true;
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(shard_->GetDocument({}, {}).ok());
  EXPECT_GT(services_[0].calls, 0);
}

// Established connections to a port of this machine, as the server has them.
int ConnectionsTo(int port) {
  const std::string local = fmt::format("0100007F:{:04X}", port);
  int connections = 0;
  for (const char* file : {"/proc/net/tcp", "/proc/net/tcp6"}) {  // the latter has it as an address of IPv6
    std::ifstream table(file);
    for (std::string number, from, to, state, rest; table >> number >> from >> to >> state; std::getline(table, rest)) {
      if (from.ends_with(local) && state == "01") ++connections;
    }
  }
  return connections;
}

TEST_F(ReplicasTest, OneThatWasTakenOutIsForgotten) {
  shard_.reset();
  ClusterConfig shrunk = *config_;
  shrunk.shards[0].replicas.pop_back();
  shrunk.shards[0].in_sync.pop_back();
  const auto without = std::make_shared<const ClusterConfig>(shrunk);
  std::atomic<bool> is_whole = true;
  RemoteShard shard(0, ClusterView{[&] { return is_whole ? config_ : without; }, [] {}, {}}, metrics_);
  const auto shown = [&](const std::string& replica) {
    shard.RefreshMetrics();
    int gauges = 0;
    for (const prometheus::MetricFamily& family : metrics_.Collect()) {
      if (family.type != prometheus::MetricType::Gauge) continue;
      for (const prometheus::ClientMetric& metric : family.metric) {
        for (const auto& label : metric.label) gauges += label.name == "replica" && label.value == replica;
      }
    }
    return gauges;
  };
  EXPECT_EQ(shown("r0"), 4);
  EXPECT_EQ(shown("r1"), 4);
  const auto wait = [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
  while (ConnectionsTo(servers_[1]->port()) == 0) wait();
  is_whole = false;
  EXPECT_EQ(shown("r0"), 4);
  EXPECT_EQ(shown("r1"), 0);
  while (ConnectionsTo(servers_[1]->port()) > 0) wait();
  EXPECT_GT(ConnectionsTo(servers_[0]->port()), 0);
  is_whole = true;
  EXPECT_EQ(shown("r1"), 4) << "it was put back";
}

TEST_F(ReplicasTest, OneThatIsNotInSyncIsNotRead) {
  ClusterConfig config = *config_;
  config.shards[0].in_sync = {"r0"};
  const auto one = std::make_shared<const ClusterConfig>(config);
  RemoteShard shard(0, ClusterView{[&] { return one; }, [] {}, {}}, metrics_);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(shard.GetDocument({}, {}).ok());
  EXPECT_EQ(services_[1].calls, 0);
  config.shards[0].in_sync.clear();
  const auto none = std::make_shared<const ClusterConfig>(config);
  RemoteShard founding(0, ClusterView{[&] { return none; }, [] {}, {}}, metrics_);
  EXPECT_EQ(ReasonOf(founding.GetDocument({}, {}).status()), Reason::kShardUnavailable);
  EXPECT_FALSE(founding.available());
}

}  // namespace
}  // namespace retro
