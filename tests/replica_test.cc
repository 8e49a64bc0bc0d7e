// Replicas of one shard, each with its server, in this process: what each failure does to them. The kills of real
// processes are in cluster_kill_test.cc.
#include "retriever_service/replica/replica.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "retriever_service/replica/replica_admin.h"
#include "retriever_service/shard/remote_shard.h"
#include "tests/free_port.h"
#include "tests/replica_member.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

using std::chrono::milliseconds;

void WaitUntil(const std::string& what, const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << what;
    std::this_thread::sleep_for(milliseconds(5));
  }
}

class ReplicaTest : public testing::Test {
 protected:
  ReplicaTest() { spdlog::set_level(spdlog::level::off); }
  ~ReplicaTest() override {
    router_.reset();
    members_.clear();
  }

  void MakeCluster(const std::vector<std::string>& names, uint32_t min_in_sync = 1) {
    ClusterConfig config;
    config.version = 1;
    config.cluster = "test";
    config.store_id = "0123456789abcdef";
    config.min_in_sync = min_in_sync;
    ShardConfig& shard = config.shards.emplace_back();
    shard.last_slot = 4095;
    shard.primary = names[0];
    for (const std::string& name : names) shard.replicas.push_back({name, StrCat("127.0.0.1:", FreePort())});
    ASSERT_TRUE(WriteFileAtomically(file_, FormatClusterFile(config)).ok());
    for (const std::string& name : names) StartMember(name);
    auto watch = ClusterWatch::Start(file_);
    ASSERT_TRUE(watch.ok()) << watch.status();
    watch_ = *std::move(watch);
    router_ = std::make_unique<RemoteShard>(
        0, ClusterView{[this] { return watch_->Get(); }, [this] { watch_->Reload(); }, {}}, metrics_);
  }

  void StartMember(const std::string& name) {
    const auto config = ReadClusterFile(file_);
    ASSERT_TRUE(config.ok());
    members_[name] = std::make_unique<Member>(file_, folder_ / name, name, config->shards[0].Find(name)->address,
                                              log_changes_max_, late_after_);
  }
  void StopMember(const std::string& name) { members_.erase(name); }

  // In the cluster file, in what each of them knows of it, and in what they hold.
  void WaitForInSync(const std::vector<std::string>& names) {
    WaitUntil("in sync", [&] {
      const auto config = watch_->Get();
      const std::vector<std::string>& in_sync = config->shards[0].in_sync;
      if (std::set<std::string>(in_sync.begin(), in_sync.end()) != std::set<std::string>(names.begin(), names.end())) {
        return false;
      }
      std::set<std::pair<uint64_t, uint64_t>> positions;
      for (const std::string& name : names) {
        const auto info = members_.at(name)->shard().GetShardInfo({}, CallContext());
        if (!info.ok() || !info->in_sync() || info->epoch() != config->shards[0].epoch) return false;
        positions.emplace(info->position().epoch(), info->position().number());
      }
      return positions.size() == 1;
    });
  }

  static shardpb::WriteRequest Document(const std::string& id, const std::string& text) {
    shardpb::WriteRequest request;
    shardpb::DocumentChange& change = *request.add_changes();
    change.mutable_document()->set_id(id);
    change.mutable_document()->set_text(text);
    for (const char* key : {"x", "y", "z"}) {
      (*change.mutable_document()->mutable_metadata())[key].add_values()->set_string_value(text);
    }
    change.set_content_hash(ContentHash(change.document()));
    change.set_text_hash(TextHash(text));
    change.add_chunks()->set_end(text.size());
    change.mutable_chunks(0)->set_vector_fp16(ToHalf(std::vector<float>{1, static_cast<float>(text.size())}));
    return request;
  }

  // More than a message may be, as a write and all the more as a change, whose rows repeat the document's id.
  static constexpr size_t kLargeDocumentChunks = 12'000;
  static shardpb::WriteRequest LargeDocument(const std::string& id) {
    constexpr int kTokensAChunk = 560;  // of 10 bytes each
    shardpb::WriteRequest request = Document(id, std::string(kLargeDocumentChunks, 'x'));
    shardpb::DocumentChange& change = *request.mutable_changes(0);
    (*change.mutable_document()->mutable_metadata()).clear();
    change.set_content_hash(ContentHash(change.document()));
    const std::string vector = change.chunks(0).vector_fp16();
    change.clear_chunks();
    for (size_t end = 1; end <= kLargeDocumentChunks; ++end) {
      shardpb::ChunkContent& chunk = *change.add_chunks();
      chunk.set_end(end);
      for (int i = 0; i < kTokensAChunk; ++i) chunk.add_token_ids(-1);
      chunk.set_vector_fp16(vector);
    }
    return request;
  }

  // Through the router, until it is acknowledged.
  void Write(const std::string& id, const std::string& text) {
    WaitUntil(StrCat("write of ", id), [&] {
      const auto response = router_->Write(Document(id, text), CallContext());
      return response.ok() && !response->results(0).has_error();
    });
  }
  absl::Status TryWrite(const std::string& id, const std::string& text) {
    return router_->Write(Document(id, text), CallContext()).status();
  }
  // A write of the cluster file's epoch.
  bool Refuses(const std::string& member, Reason reason) {
    auto request = Document("refused", "x");
    request.set_epoch(watch_->Get()->shards[0].epoch);
    return ReasonOf(members_.at(member)->shard().Write(request, CallContext()).status()) == reason;
  }
  void Delete(const std::string& id) {
    shardpb::DeleteRequest request;
    request.add_document_ids(id);
    ASSERT_TRUE(router_->Delete(request, CallContext()).ok());
  }

  static absl::StatusOr<int> ChangesAfter(const LocalShard& shard, const shardpb::Position& after) {
    int changes = 0;
    RETRO_RETURN_IF_ERROR(shard.ReadChanges(after, SIZE_MAX, SIZE_MAX, std::chrono::steady_clock::now(), [&](auto) {
      ++changes;
      return absl::OkStatus();
    }));
    return changes;
  }

  absl::StatusOr<std::string> ReadOn(const std::string& member, const std::string& id) {
    shardpb::GetDocumentRequest request;
    request.set_document_id(id);
    RETRO_ASSIGN_OR_RETURN(const auto response, members_.at(member)->shard().GetDocument(request, CallContext()));
    return response.document().text();
  }
  shardpb::Position PositionOf(const std::string& member) {
    return (*members_.at(member)->shard().local())->position();
  }
  // A read of "one" with a token.
  absl::Status ReadAfter(const std::string& member, const shardpb::Position& position) {
    shardpb::GetDocumentRequest request;
    request.set_document_id("one");
    *request.mutable_barrier()->mutable_position() = position;
    return members_.at(member)->shard().GetDocument(request, CallContext()).status();
  }
  std::string DigestOf(const std::string& member) {
    const auto response = MakeReplicaAdmin(members_.at(member)->replica())->Verify({}, CallContext());
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? response->content_sha256() : "";
  }
  void ExpectEqual(const std::string& a, const std::string& b) {
    EXPECT_EQ(DigestOf(a), DigestOf(b));
    shardpb::SearchRequest search;
    search.set_k(100);
    for (const float x : {1.0F, 9.0F}) {
      if (search.queries().empty()) search.add_queries();
      search.mutable_queries(0)->mutable_vector()->add_values(x);
    }
    const auto from_a = members_.at(a)->shard().Search(search, CallContext());
    const auto from_b = members_.at(b)->shard().Search(search, CallContext());
    ASSERT_TRUE(from_a.ok() && from_b.ok()) << from_a.status() << from_b.status();
    ASSERT_EQ(from_a->results(0).neighbours_size(), from_b->results(0).neighbours_size());
    for (int i = 0; i < from_a->results(0).neighbours_size(); ++i) {
      EXPECT_EQ(from_a->results(0).neighbours(i).document_id(), from_b->results(0).neighbours(i).document_id());
      EXPECT_EQ(from_a->results(0).neighbours(i).distance(), from_b->results(0).neighbours(i).distance());
    }
    EXPECT_EQ(from_a->position().number(), from_b->position().number());
  }

  TemporaryFolder folder_;
  const std::string file_ = folder_ / "cluster.json";
  uint64_t log_changes_max_ = 1000;
  milliseconds late_after_{300};
  std::map<std::string, std::unique_ptr<Member>> members_;
  Metrics metrics_;
  std::unique_ptr<ClusterWatch> watch_;
  std::unique_ptr<RemoteShard> router_;
};

TEST_F(ReplicaTest, AcknowledgedIsOnAllReplicas) {
  MakeCluster({"a", "b", "c"});
  Write("before", "x");
  WaitForInSync({"a", "b", "c"});
  for (int i = 0; i < 30; ++i) {
    const std::string id = StrCat("d", i % 10), text(1 + i, 'x');
    Write(id, text);
    for (const char* member : {"a", "b", "c"}) EXPECT_EQ(*ReadOn(member, id), text) << member;
  }
  Delete("d3");
  for (const char* member : {"a", "b", "c"})
    EXPECT_EQ(ReadOn(member, "d3").status().code(), absl::StatusCode::kNotFound);
  ExpectEqual("a", "b");
  ExpectEqual("a", "c");
  EXPECT_EQ(ReasonOf(members_.at("b")->shard().Write(Document("x", "y"), CallContext()).status()), Reason::kStaleEpoch);
}

TEST_F(ReplicaTest, ADocumentLargerThanAMessageIsReplicated) {
  late_after_ = std::chrono::minutes(1);
  MakeCluster({"a", "b"}, /*min_in_sync=*/2);
  WaitForInSync({"a", "b"});
  const std::string id(512, 'i');
  const auto written = router_->Write(LargeDocument(id), CallContext());
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(ReadOn("b", id)->size(), kLargeDocumentChunks);
  ExpectEqual("a", "b");
}

// The version of the cluster file rises all the time, as it does when other shards' replicas come and go.
TEST_F(ReplicaTest, NewsOfOthersDoesNotEndACopy) {
  log_changes_max_ = 1;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  StopMember("b");
  ASSERT_TRUE(router_->Write(LargeDocument("large"), CallContext()).ok());
  Write("one", "x");
  WaitForInSync({"a"});
  std::filesystem::remove_all(folder_ / "b");
  std::atomic<bool> done = false;
  std::thread news([&] {
    while (!done) {
      EXPECT_TRUE(UpdateClusterFile(file_, [](ClusterConfig&) { return absl::OkStatus(); }).ok());
      std::this_thread::sleep_for(milliseconds(10));
    }
  });
  StartMember("b");
  WaitUntil("b has it", [&] {
    const auto local = members_.at("b")->shard().local();
    return local.ok() && (*local)->position().number() > 0;
  });
  done = true;
  news.join();
  WaitForInSync({"a", "b"});
}

TEST_F(ReplicaTest, TheLogIsKeptForACopyUnderWay) {
  log_changes_max_ = 5;
  MakeCluster({"a"});
  Write("one", "x");
  const auto local = *members_.at("a")->shard().local();
  const shardpb::Position copied = local->position();
  shardpb::FetchSnapshotRequest request;
  request.set_replica("b");
  bool first = true;
  ASSERT_TRUE(members_.at("a")
                  ->replica()
                  .SendSnapshot(request, CallContext(),
                                [&](const auto&) {
                                  for (int i = 0; first && i < 20; ++i) Write(StrCat("d", i), "x");
                                  first = false;
                                  return absl::OkStatus();
                                })
                  .ok());
  EXPECT_EQ(*ChangesAfter(*local, copied), 20);
}

// Who opens a copy of it has told its former life.
TEST_F(ReplicaTest, TheLogIsKeptForAWhileAfterAStart) {
  log_changes_max_ = 5;
  MakeCluster({"a"});
  Write("one", "x");
  const shardpb::Position copied = (*members_.at("a")->shard().local())->position();
  StopMember("a");
  StartMember("a");
  for (int i = 0; i < 20; ++i) Write(StrCat("d", i), "x");
  EXPECT_EQ(*ChangesAfter(**members_.at("a")->shard().local(), copied), 21) << "and an epoch";
}

// And pulls what came meanwhile.
TEST_F(ReplicaTest, TheLogIsKeptForOneThatOpensItsCopy) {
  log_changes_max_ = 5;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  StopMember("b");
  Write("one", "x");
  WaitForInSync({"a"});
  const auto local = *members_.at("a")->shard().local();
  shardpb::KeepLogRequest keep;
  keep.set_replica("b");
  *keep.mutable_from() = local->position();
  ASSERT_TRUE(members_.at("a")->replica().KeepLog(keep, CallContext()).ok());
  for (int i = 0; i < 20; ++i) Write(StrCat("d", i), "x");
  EXPECT_EQ(*ChangesAfter(*local, keep.from()), 20);
  shardpb::PullChangesRequest pull;
  pull.set_replica("b");
  pull.set_epoch(watch_->Get()->shards[0].epoch);
  *pull.mutable_after() = keep.from();
  pull.mutable_after()->set_number(keep.from().number() + 10);
  const auto take = [](const auto&) { return absl::OkStatus(); };
  ASSERT_TRUE(members_.at("a")->replica().Pull(pull, CallContext(), take).ok());
  for (int i = 0; i < 20; ++i) Write(StrCat("e", i), "x");
  EXPECT_EQ(*ChangesAfter(*local, pull.after()), 30);
  EXPECT_EQ(ReasonOf(ChangesAfter(*local, keep.from()).status()), Reason::kBehindLog);
  keep.set_replica("stranger");
  EXPECT_FALSE(members_.at("a")->replica().KeepLog(keep, CallContext()).ok());
}

TEST_F(ReplicaTest, ReadOnlyHoldsForWhoeverIsThePrimary) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  adminpb::SetReadOnlyRequest request;
  request.set_read_only(true);
  ASSERT_TRUE(MakeReplicaAdmin(members_.at("a")->replica())->SetReadOnly(request, CallContext()).ok());
  EXPECT_TRUE(Refuses("a", Reason::kReadOnly)) << "at once";
  ASSERT_TRUE(members_.at("b")->replica().Promote().ok());
  WaitUntil("b leads and refuses", [&] { return Refuses("b", Reason::kReadOnly); });
  StopMember("b");
  StartMember("b");
  WaitUntil("b leads again and refuses", [&] { return Refuses("b", Reason::kReadOnly); });
  EXPECT_TRUE((*members_.at("b")->shard().local())->Stats({}, {})->stats().read_only());
  request.set_read_only(false);
  ASSERT_TRUE(MakeReplicaAdmin(members_.at("b")->replica())->SetReadOnly(request, CallContext()).ok());
  Write("one", "x");
}

TEST_F(ReplicaTest, WritesThatWaitForAReplicaHoldUpNoReads) {
  late_after_ = std::chrono::minutes(10);
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  std::vector<std::thread> writers;
  for (int i = 0; i < 12; ++i) {  // more than a member has workers
    writers.emplace_back([this, i] {
      CallContext context;
      context.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(3);
      EXPECT_FALSE(router_->Write(Document(StrCat("late", i), "x"), context).ok());
    });
  }
  WaitUntil("they are under way", [&] { return ReadOn("a", "late0").ok() && ReadOn("a", "late11").ok(); });
  shardpb::GetDocumentRequest get;
  get.set_document_id("one");
  CallContext context;
  context.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  const auto read = router_->GetDocument(get, context);
  EXPECT_TRUE(read.ok()) << read.status();
  for (std::thread& writer : writers) writer.join();
}

TEST_F(ReplicaTest, AReplicaWhoseStoreDidNotOpenTriesAgain) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  members_.at("b")->shard().CloseLocal();  // as after an opening that failed
  Write("two", "xx");
  WaitForInSync({"a", "b"});
  ExpectEqual("a", "b");
}

TEST_F(ReplicaTest, AClosedStoreCanBeOpenedAtOnce) {
  MakeCluster({"a"});
  ReplicaShard shard(*watch_, 0, "a", late_after_);
  LocalShardOptions options;
  options.store.path = folder_ / "alone";
  for (int i = 0; i < 20; ++i) {
    shard.SetLocal(*LocalShard::Open(options));
    std::thread user([used = *shard.local()]() mutable {
      std::this_thread::sleep_for(milliseconds(10));
      used.reset();  // the last one, so that it is closed here
    });
    shard.CloseLocal();
    EXPECT_TRUE(LocalShard::Open(options).ok());
    user.join();
  }
}

TEST_F(ReplicaTest, AReplicaThatIsDownIsDroppedAndCatchesUp) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  Write("two", "xx");  // is acknowledged once b has been dropped
  WaitForInSync({"a"});
  Write("one", "xxx");
  StartMember("b");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(*ReadOn("b", "one"), "xxx");
  ExpectEqual("a", "b");
}

TEST_F(ReplicaTest, TooFewReplicasRefuseWritesAndReadsGoOn) {
  MakeCluster({"a", "b"}, /*min_in_sync=*/2);
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  EXPECT_EQ(ReasonOf(TryWrite("two", "xx")), Reason::kWriteOutcomeUnknown);
  WaitForInSync({"a"});
  EXPECT_EQ(ReasonOf(TryWrite("three", "xx")), Reason::kShardUnavailable);
  EXPECT_EQ(*ReadOn("a", "one"), "x");
  StartMember("b");
  Write("three", "xx");
}

TEST_F(ReplicaTest, AWipedReplicaTakesACopyWhenTheLogIsShort) {
  log_changes_max_ = 5;
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  for (int i = 0; i < 40; ++i) Write(StrCat("d", i % 15), std::string(1 + i, 'x'));
  StopMember("b");
  std::filesystem::remove_all(folder_ / "b");
  StartMember("b");
  WaitUntil("dropped and back", [&] {
    const auto read = ReadOn("b", "d1");
    if (read.ok()) return true;
    EXPECT_EQ(ReasonOf(read.status()), Reason::kShardUnavailable) << read.status();
    return false;
  });
  WaitForInSync({"a", "b"});
  Write("last", "x");
  ExpectEqual("a", "b");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "b/incoming"));
}

TEST_F(ReplicaTest, AnotherIsPromotedAndTheOldPrimaryFollows) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  EXPECT_TRUE(members_.at("b")->replica().Promote().ok());
  Write("one", "xx");  // through the old epoch's router
  EXPECT_EQ(watch_->Get()->shards[0].primary, "b");
  WaitForInSync({"a", "b"});
  Write("two", "xxx");
  ExpectEqual("a", "b");
}

TEST_F(ReplicaTest, WithThePrimaryDownReadsGoOnAndWritesWaitForAPromotion) {
  MakeCluster({"a", "b", "c"});
  WaitForInSync({"a", "b", "c"});
  Write("one", "x");
  StopMember("a");
  shardpb::GetDocumentRequest get;
  get.set_document_id("one");
  EXPECT_TRUE(router_->GetDocument(get, CallContext()).ok());
  WaitUntil("the router knows that it is gone",
            [&] { return ReasonOf(TryWrite("two", "x")) == Reason::kShardUnavailable; });
  ASSERT_TRUE(members_.at("b")->replica().Promote().ok());
  Write("two", "xx");
  StartMember("a");
  WaitForInSync({"a", "b", "c"});
  ExpectEqual("a", "b");
  ExpectEqual("b", "c");
}

TEST_F(ReplicaTest, AReplicaThatIsNotInSyncIsNotPromoted) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  Write("two", "x");
  WaitForInSync({"a"});
  StopMember("a");
  StartMember("b");
  EXPECT_EQ(ReasonOf(members_.at("b")->replica().Promote().status()), Reason::kBehindLog);
  EXPECT_EQ(ReasonOf(ReadOn("b", "one").status()), Reason::kShardUnavailable) << "it may be stale";
  StartMember("a");
  Write("three", "x");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(*ReadOn("b", "two"), "x");
}

// What a primary wrote and nobody else has was never acknowledged; when another was promoted meanwhile, it is
// discarded.
TEST_F(ReplicaTest, ADivergedPrimaryTakesACopyOfTheNewOnes) {
  late_after_ = std::chrono::minutes(10);
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  // The write reaches a's store alone: it ends when b is promoted, by the file alone, as b is down.
  std::thread writer([&] { EXPECT_FALSE(TryWrite("lost", "x").ok()); });
  WaitUntil("a has it", [&] { return ReadOn("a", "lost").ok(); });
  ASSERT_TRUE(UpdateClusterFile(file_, [](ClusterConfig& config) {
                config.shards[0].primary = "b";
                config.shards[0].in_sync = {"b"};
                ++config.shards[0].epoch;
                return absl::OkStatus();
              }).ok());
  writer.join();
  StartMember("b");
  Write("two", "x");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(ReadOn("a", "lost").status().code(), absl::StatusCode::kNotFound);
  ExpectEqual("a", "b");
}

TEST_F(ReplicaTest, AWipedPrimaryRefusesToLead) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("a");
  std::filesystem::remove_all(folder_ / "a");
  StartMember("a");
  WaitUntil("refused", [&] { return Refuses("a", Reason::kStoreDamaged); });
  ASSERT_TRUE(members_.at("b")->replica().Promote().ok());
  Write("two", "x");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(*ReadOn("a", "one"), "x");
}

TEST_F(ReplicaTest, APrimaryThatCameBackOlderRefusesToLead) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("a");
  std::filesystem::copy(folder_ / "a", folder_ / "older", std::filesystem::copy_options::recursive);
  StartMember("a");
  Write("two", "x");
  WaitForInSync({"a", "b"});  // or b, if it was dropped for being slow, need not have it
  StopMember("a");
  std::filesystem::remove_all(folder_ / "a");
  std::filesystem::rename(folder_ / "older", folder_ / "a");
  StartMember("a");
  WaitUntil("refused", [&] { return Refuses("a", Reason::kStoreDamaged); });
  EXPECT_EQ(*ReadOn("b", "two"), "x");
  ASSERT_TRUE(members_.at("b")->replica().Promote().ok());
  Write("three", "x");
  WaitForInSync({"a", "b"});
  EXPECT_EQ(*ReadOn("a", "two"), "x");
  ExpectEqual("a", "b");
}

// All disks are gone, and the primary's is put back as it was some time ago.
TEST_F(ReplicaTest, ATokenOfALostWriteIsRefusedHoweverManyFollow) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  const shardpb::Position kept = PositionOf("a");
  StopMember("a");
  std::filesystem::copy(folder_ / "a", folder_ / "older", std::filesystem::copy_options::recursive);
  StartMember("a");
  Write("two", "x");
  const shardpb::Position lost = PositionOf("a");
  StopMember("a");
  StopMember("b");
  std::filesystem::remove_all(folder_ / "a");
  std::filesystem::remove_all(folder_ / "b");
  std::filesystem::rename(folder_ / "older", folder_ / "a");
  StartMember("a");
  do {
    Write("three", StrCat(PositionOf("a").number()));
  } while (PositionOf("a").number() < lost.number());
  StartMember("b");
  Write("four", "x");
  WaitForInSync({"a", "b"});
  for (const std::string name : {"a", "b"}) {
    EXPECT_TRUE(ReadAfter(name, kept).ok()) << name;
    EXPECT_TRUE(ReadAfter(name, PositionOf("a")).ok()) << name;
    const absl::Status status = ReadAfter(name, lost);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << name << ": " << status;
    EXPECT_EQ(ReasonOf(status), Reason::kForeignStore) << name << ": " << status;
  }
}

TEST_F(ReplicaTest, FilesThatDisagreeStopWrites) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  Write("one", "x");
  StopMember("b");
  ClusterConfig other = *watch_->Get();  // the same version, but b is its primary
  other.shards[0].primary = "b";
  const std::string other_file = folder_ / "other.json";
  ASSERT_TRUE(WriteFileAtomically(other_file, FormatClusterFile(other)).ok());
  members_["b"] =
      std::make_unique<Member>(other_file, folder_ / "b", "b", other.shards[0].Find("b")->address, 1000, late_after_);
  WaitUntil("both notice",
            [&] { return Refuses("a", Reason::kClusterMismatch) && Refuses("b", Reason::kClusterMismatch); });
  WaitUntil("so does the router", [&] { return ReasonOf(TryWrite("two", "x")) == Reason::kClusterMismatch; });
}

TEST_F(ReplicaTest, AnOlderEpochIsRefused) {
  MakeCluster({"a", "b"});
  WaitForInSync({"a", "b"});
  const uint64_t epoch = watch_->Get()->shards[0].epoch;
  auto request = Document("one", "x");
  request.set_epoch(epoch - 1);
  EXPECT_EQ(ReasonOf(members_.at("a")->shard().Write(request, CallContext()).status()), Reason::kStaleEpoch);
  shardpb::DeleteRequest deletion;
  deletion.add_document_ids("one");
  deletion.set_epoch(epoch - 1);
  EXPECT_EQ(ReasonOf(members_.at("a")->shard().Delete(deletion, CallContext()).status()), Reason::kStaleEpoch);
  shardpb::PullChangesRequest pull;
  pull.set_replica("b");
  pull.set_epoch(epoch - 1);
  const auto take_none = [](const shardpb::PullChangesResponse&) { return absl::OkStatus(); };
  EXPECT_EQ(ReasonOf(members_.at("a")->replica().Pull(pull, CallContext(), take_none)), Reason::kStaleEpoch);
  pull.set_epoch(epoch);
  pull.set_replica("stranger");
  EXPECT_EQ(ReasonOf(members_.at("a")->replica().Pull(pull, CallContext(), take_none)), Reason::kClusterMismatch);
}

}  // namespace
}  // namespace retro
