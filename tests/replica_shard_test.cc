// A replica's shard, whose followers are the test's.
#include "retriever_service/replica/replica_shard.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "retriever_service/shard/local_admin.h"
#include "retriever_service/shard/message_parts.h"
#include "retriever_service/store/layout.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr uint64_t kEpoch = 2;
constexpr uint64_t kGroup = 1024;  // changes that become durable together, at most

// Replica "a" leads, and nobody but the test speaks for "b".
class ReplicaShardTest : public testing::Test {
 protected:
  ReplicaShardTest() {
    spdlog::set_level(spdlog::level::off);
    ClusterConfig config;
    config.version = 1;
    config.cluster = "test";
    config.store_id = "0123456789abcdef";
    ShardConfig& shard = config.shards.emplace_back();
    shard.last_slot = 4095;
    shard.epoch = kEpoch;
    shard.primary = "a";
    shard.in_sync = {"a", "b"};
    shard.replicas = {{"a", "127.0.0.1:1"}, {"b", "127.0.0.1:2"}};
    EXPECT_TRUE(WriteFileAtomically(file_, FormatClusterFile(config)).ok());
    watch_ = *ClusterWatch::Start(file_);
    LocalShardOptions options;
    options.store.path = folder_ / "store";
    options.default_collection.emplace().set_dimension(2);
    options.replicated = true;
    auto local = LocalShard::Open(options);
    EXPECT_TRUE(local.ok()) << local.status();
    EXPECT_TRUE((*local)->Lead(kEpoch, shardpb::EpochStart()).ok());
    shard_ = std::make_unique<ReplicaShard>(*watch_, 0, "a", std::chrono::minutes(1));
    shard_->SetLocal(*std::move(local));
    shard_->in_sync().Lead(kEpoch, {}, 1);
  }

  void WriteDocuments(int count) {
    shardpb::WriteRequest request;
    request.set_epoch(kEpoch);
    for (int i = 0; i < count; ++i) {
      shardpb::DocumentChange& change = *request.add_changes();
      change.mutable_document()->set_id(StrCat("d", i));
      change.mutable_document()->set_source("all");
      change.mutable_document()->set_text("x");
      change.set_content_hash(ContentHash(change.document()));
      change.set_text_hash(TextHash("x"));
      change.add_chunks()->set_end(1);
      change.mutable_chunks(0)->set_vector_fp16(ToHalf(std::vector<float>{1, static_cast<float>(i)}));
    }
    const auto response = shard_->Write(request, CallContext());
    ASSERT_TRUE(response.ok()) << response.status();
  }
  static shardpb::DeleteRequest DeletionOfAll() {
    shardpb::DeleteRequest request;
    request.set_epoch(kEpoch);
    request.mutable_filter()->mutable_equals()->mutable_field()->set_builtin(pb::BUILTIN_FIELD_SOURCE);
    request.mutable_filter()->mutable_equals()->mutable_value()->set_string_value("all");
    return request;
  }
  void ExpectEndsAfterTheFirstGroup(const std::function<void()>& end);
  uint64_t newest() const { return (*shard_->local())->position().number(); }
  // Until it has moved on and stands still for a while.
  uint64_t WaitForMore(uint64_t than) const {
    uint64_t seen = 0;
    while (seen <= than || newest() != seen) {
      seen = newest();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return seen;
  }

  TemporaryFolder folder_;
  const std::string file_ = folder_ / "cluster.json";
  std::unique_ptr<ClusterWatch> watch_;
  std::unique_ptr<ReplicaShard> shard_;
};

TEST_F(ReplicaShardTest, ALargeDeletionRunsAheadOfNobodyInSync) {
  constexpr uint64_t kDocuments = 3000;
  WriteDocuments(kDocuments);
  uint64_t pulled = newest();
  const uint64_t last = pulled + kDocuments;
  shard_->in_sync().Lead(kEpoch, {"b"}, 1);
  shard_->in_sync().Pulled("b", MakePosition(kEpoch, pulled), MakePosition(kEpoch, pulled));
  std::thread deleting([&] {
    const auto response = shard_->Delete(DeletionOfAll(), CallContext());
    EXPECT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->deleted_count(), kDocuments);
  });
  while (pulled < last) {
    const uint64_t there = WaitForMore(pulled);
    EXPECT_LE(there - pulled, kGroup);
    pulled = there;
    shard_->in_sync().Pulled("b", MakePosition(kEpoch, pulled), MakePosition(kEpoch, pulled));
  }
  deleting.join();
}

// Of a deletion of three groups, with `end` called after the first, while it waits for the replica in sync.
void ReplicaShardTest::ExpectEndsAfterTheFirstGroup(const std::function<void()>& end) {
  WriteDocuments(3 * kGroup);
  const uint64_t before = newest();
  shard_->in_sync().Lead(kEpoch, {"b"}, 1);
  shard_->in_sync().Pulled("b", MakePosition(kEpoch, before), MakePosition(kEpoch, before));
  absl::Status status;
  std::thread deleting([&] { status = shard_->Delete(DeletionOfAll(), CallContext()).status(); });
  const uint64_t part = WaitForMore(before);
  end();
  shard_->in_sync().Pulled("b", MakePosition(kEpoch, part), MakePosition(kEpoch, part));
  deleting.join();
  EXPECT_EQ(ReasonOf(status), Reason::kWriteOutcomeUnknown) << status;
  EXPECT_EQ(newest(), part);
}

TEST_F(ReplicaShardTest, ADeletionThatEndsInTheMiddleDoesNotSayThatNothingWasDone) {
  ExpectEndsAfterTheFirstGroup([this] { EXPECT_TRUE((*shard_->local())->Follow().ok()); });
}

TEST_F(ReplicaShardTest, ReadOnlyStopsADeletionThatIsUnderWay) {
  ExpectEndsAfterTheFirstGroup([this] { (*shard_->local())->SetReadOnly(true); });
}

// A replica that has taken a copy has no store until whoever reads the old one for long lets go of it.
TEST_F(ReplicaShardTest, ADigestEndsWhenTheStoreIsTakenAway) {
  WriteDocuments(kGroup);
  LocalAdminOptions options;
  options.open = [this] { return shard_->local(); };
  LocalAdmin admin(std::move(options));
  const std::weak_ptr<LocalShard> local = *shard_->local();
  std::promise<void> begun;
  bool first = true;
  CallContext operators;
  operators.cancelled = [&] {  // asked by each document
    if (std::exchange(first, false)) begun.set_value();
    const auto held = local.lock();
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (held->CheckOpen().ok() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    return false;
  };
  absl::Status status;
  std::thread verifying([&] { status = admin.Verify({}, operators).status(); });
  begun.get_future().wait();
  shard_->CloseLocal();
  EXPECT_TRUE(local.expired());
  verifying.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), Reason::kShardUnavailable) << status;
  EXPECT_EQ(ReasonOf(admin.Verify({}, CallContext()).status()), Reason::kShardUnavailable);
}

TEST_F(ReplicaShardTest, ALargeChangeIsReadInParts) {
  constexpr int kChunks = 3000;
  constexpr size_t kPartBytes = 20'000;
  shardpb::WriteRequest request;
  request.set_epoch(kEpoch);
  shardpb::DocumentChange& change = *request.add_changes();
  change.mutable_document()->set_id("large");
  change.mutable_document()->set_text(std::string(kChunks, 'x'));
  change.set_content_hash(ContentHash(change.document()));
  change.set_text_hash(TextHash(change.document().text()));
  for (int i = 1; i <= kChunks; ++i) {
    change.add_chunks()->set_end(i);
    change.mutable_chunks(i - 1)->set_vector_fp16(ToHalf(std::vector<float>{1, static_cast<float>(i % 100)}));
  }
  const auto local = *shard_->local();
  const shardpb::Position before = local->position();
  ASSERT_TRUE(shard_->Write(request, CallContext()).ok());
  std::vector<shardpb::PullChangesResponse> whole, joined;
  size_t parts = 0;
  const auto now = std::chrono::steady_clock::now();
  const auto take_whole = [&](shardpb::PullChangesResponse part) {
    whole.push_back(std::move(part));
    return absl::OkStatus();
  };
  const auto take_part = [&](shardpb::PullChangesResponse part) {
    EXPECT_LE(part.ByteSizeLong(), kPartBytes + 200);
    EXPECT_EQ(part.has_change(), parts++ == 0);
    AddPart(std::move(part), joined);
    return absl::OkStatus();
  };
  ASSERT_TRUE(local->ReadChanges(before, SIZE_MAX, SIZE_MAX, now, take_whole).ok());
  ASSERT_TRUE(local->ReadChanges(before, SIZE_MAX, kPartBytes, now, take_part).ok());
  ASSERT_EQ(whole.size(), 1u);
  EXPECT_EQ(whole[0].chunks_size(), kChunks);
  EXPECT_GE(parts, 5u);
  ASSERT_EQ(joined.size(), 1u);
  EXPECT_EQ(joined[0].SerializeAsString(), whole[0].SerializeAsString());
  // An answer that nobody takes any more is read no further.
  int taken = 0;
  const absl::Status left = local->ReadChanges(before, SIZE_MAX, kPartBytes, now, [&](const auto&) {
    ++taken;
    return absl::CancelledError("gone");
  });
  EXPECT_EQ(left.message(), "gone");
  EXPECT_EQ(taken, 1);
}

}  // namespace
}  // namespace retro
