// A replica that takes copies of its primary's store, from a primary that the test plays.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/base/sync.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "retriever_service/replica/replica.h"
#include "retriever_service/replica/store_copy.h"
#include "retriever_service/store/layout.h"
#include "retro/shard/v1/shard.grpc.pb.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr uint64_t kEpoch = 2;
constexpr char kStoreId[] = "0123456789abcdef";

// Has no log, and a copy of its store only if it has a store.
class FakePrimary final : public shardpb::ShardService::Service {
 public:
  grpc::Status PullChanges(grpc::ServerContext*, const shardpb::PullChangesRequest* request,
                           grpc::ServerWriter<shardpb::PullChangesResponse>* writer) override {
    ++pulls;
    if (store == nullptr || IsBefore(request->after(), store->position())) {
      return ToGrpcStatus(Error(absl::StatusCode::kFailedPrecondition, Reason::kBehindLog, "the log is gone"));
    }
    if (++pulls_after_copy == 1) asked_before_pull = asked_to_keep.load();
    writer->Write(shardpb::PullChangesResponse());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::OK;
  }
  grpc::Status FetchSnapshot(grpc::ServerContext*, const shardpb::FetchSnapshotRequest*,
                             grpc::ServerWriter<shardpb::FetchSnapshotResponse>* writer) override {
    ++copies;
    if (store == nullptr) return {grpc::StatusCode::INTERNAL, "it cannot be read"};
    return ToGrpcStatus(SendStoreCopy(*store, folder, /*with_index=*/false, [&](const auto& part) {
      writer->Write(part);
      return absl::OkStatus();
    }));
  }
  grpc::Status KeepLog(grpc::ServerContext*, const shardpb::KeepLogRequest* request,
                       shardpb::KeepLogResponse*) override {
    const MutexLock lock(mutex);
    kept = *request;
    ++asked_to_keep;
    return grpc::Status::OK;
  }

  std::unique_ptr<LocalShard> store;
  std::string folder;
  std::atomic<int> pulls = 0, copies = 0, asked_to_keep = 0, pulls_after_copy = 0, asked_before_pull = 0;
  Mutex mutex;
  shardpb::KeepLogRequest kept ABSL_GUARDED_BY(mutex);
};

class ReplicaCopyTest : public testing::Test {
 protected:
  ReplicaCopyTest() { spdlog::set_level(spdlog::level::off); }

  void Start() {
    server_ = *RpcServer::Start({}, {&primary_});
    ClusterConfig config;
    config.version = 1;
    config.cluster = "test";
    config.store_id = kStoreId;
    ShardConfig& shard = config.shards.emplace_back();
    shard.last_slot = 4095;
    shard.epoch = kEpoch;
    shard.primary = "a";
    shard.in_sync = {"a"};
    shard.replicas = {{"a", StrCat("127.0.0.1:", server_->port())}, {"b", "127.0.0.1:1"}};
    const std::string file = folder_ / "cluster.json";
    ASSERT_TRUE(WriteFileAtomically(file, FormatClusterFile(config)).ok());
    watch_ = *ClusterWatch::Start(file);
    ReplicaOptions options;
    options.name = "b";
    options.local.store.path = folder_ / "b";
    auto replica = Replica::Start(options, *watch_);
    ASSERT_TRUE(replica.ok()) << replica.status();
    replica_ = *std::move(replica);
  }

  TemporaryFolder folder_;
  FakePrimary primary_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<ClusterWatch> watch_;
  std::unique_ptr<Replica> replica_;
};

// Each of them has the primary read its whole store.
TEST_F(ReplicaCopyTest, CopiesThatBringNothingBecomeRare) {
  const auto start = std::chrono::steady_clock::now();
  Start();
  while (primary_.pulls < 25) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const int copies = primary_.copies;
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  EXPECT_GE(copies, 1);
  EXPECT_LE(copies, 1 + std::log2(1 + passed.count())) << "after pauses of 1, 2, 4 s and so on";
}

TEST_F(ReplicaCopyTest, TheLogIsAskedForWhileTheCopyIsOpened) {
  LocalShardOptions options;
  options.store.path = primary_.folder = folder_ / "a";
  options.store.cluster = "test";
  options.store.store_id = kStoreId;
  options.replicated = true;
  options.default_collection.emplace().set_dimension(2);
  primary_.store = *LocalShard::Open(options);
  ASSERT_TRUE(primary_.store->Lead(kEpoch, shardpb::EpochStart()).ok());
  Start();
  while (primary_.pulls_after_copy == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_GE(primary_.asked_before_pull, 1);
  const MutexLock lock(primary_.mutex);
  EXPECT_EQ(primary_.kept.replica(), "b");
  EXPECT_EQ(primary_.kept.from().number(), primary_.store->position().number());
  EXPECT_EQ(primary_.kept.from().epoch(), primary_.store->position().epoch());
}

}  // namespace
}  // namespace retro
