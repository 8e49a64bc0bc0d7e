// Collections of a shard that come and go: what stays of them, and what becomes of whoever is at it.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "retriever_service/shard/local_shard.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr char kNamed[] = "named";

pb::CollectionSpec Spec(const std::string& name) {
  pb::CollectionSpec spec;
  spec.set_name(name);
  spec.set_dimension(2);
  spec.set_embedder_fingerprint("embedder");
  return spec;
}

class DroppedCollectionTest : public testing::Test {
 protected:
  DroppedCollectionTest() {
    spdlog::set_level(spdlog::level::off);
    options_.store.path = folder_ / "store";
    options_.default_collection = Spec("");
    options_.index.seal_rows = 64;
    Open();
  }

  void Open() {
    shard_.reset();
    auto shard = LocalShard::Open(options_);
    ASSERT_TRUE(shard.ok()) << shard.status();
    shard_ = *std::move(shard);
  }
  absl::Status Create(const pb::CollectionSpec& spec) {
    shardpb::CreateCollectionRequest request;
    *request.mutable_spec() = spec;
    return shard_->CreateCollection(request, context_).status();
  }
  absl::StatusOr<shardpb::DropCollectionResponse> Drop(const std::string& name) {
    shardpb::DropCollectionRequest request;
    request.set_name(name);
    return shard_->DropCollection(request, context_);
  }
  absl::Status Write(const std::string& collection, const std::string& id, const std::string& text) {
    shardpb::WriteRequest request;
    request.set_collection(collection);
    shardpb::DocumentChange& change = *request.add_changes();
    change.mutable_document()->set_id(id);
    change.mutable_document()->set_text(text);
    change.set_content_hash(ContentHash(change.document()));
    change.set_text_hash(TextHash(text));
    change.add_chunks()->set_end(text.size());
    change.mutable_chunks(0)->set_vector_fp16(ToHalf(std::vector<float>{1, 0}));
    return shard_->Write(request, context_).status();
  }
  absl::StatusOr<shardpb::SearchResponse> Search(const std::string& collection) {
    shardpb::SearchRequest request;
    request.set_collection(collection);
    request.set_k(10);
    pb::Vector& vector = *request.add_queries()->mutable_vector();
    vector.add_values(1);
    vector.add_values(0);
    return shard_->Search(request, context_);
  }
  int FoundIn(const std::string& collection) {
    const auto found = Search(collection);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? found->results(0).neighbours_size() : -1;
  }
  std::filesystem::path IndexOf(uint32_t number) { return folder_ / StrCat("store/index/", number); }
  void AwaitRemoval(uint32_t number) {
    while (std::filesystem::exists(IndexOf(number))) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  TemporaryFolder folder_;
  LocalShardOptions options_;
  CallContext context_;
  std::unique_ptr<LocalShard> shard_;
};

TEST_F(DroppedCollectionTest, MakingItAgainAsItIsIsNoError) {
  pb::CollectionSpec spec = Spec(kNamed);
  ASSERT_TRUE(Create(spec).ok());
  EXPECT_TRUE(Create(spec).ok());
  spec.set_self_test_vector("as another router computes it");
  EXPECT_TRUE(Create(spec).ok());
  spec.set_dimension(3);
  EXPECT_EQ(ReasonOf(Create(spec)), Reason::kCollectionExists);
}

TEST_F(DroppedCollectionTest, IsGoneWithItsIndex) {
  ASSERT_TRUE(Create(Spec(kNamed)).ok());
  ASSERT_TRUE(Write("", "a", "text").ok());
  ASSERT_TRUE(Write(kNamed, "a", "other").ok());
  ASSERT_TRUE(shard_->SealIndex(kNamed).ok());
  ASSERT_TRUE(shard_->WaitForIndexes(0).ok());
  ASSERT_TRUE(std::filesystem::exists(IndexOf(1) / "manifest"));
  const auto dropped = Drop(kNamed);
  ASSERT_TRUE(dropped.ok() && dropped->found()) << dropped.status();
  EXPECT_EQ(dropped->position().number(), shard_->position().number());
  AwaitRemoval(1);
  std::filesystem::create_directories(IndexOf(1));  // as a process leaves it that dies before that is removed
  for (const bool reopened : {false, true}) {
    if (reopened) Open();
    EXPECT_EQ(std::filesystem::exists(IndexOf(1)), !reopened);
    EXPECT_EQ(ReasonOf(Search(kNamed).status()), Reason::kCollectionNotFound);
    EXPECT_EQ(ReasonOf(Write(kNamed, "b", "more")), Reason::kCollectionNotFound);
    EXPECT_EQ(shard_->Stats({}, context_)->stats().collections_size(), 1);
    EXPECT_EQ(FoundIn(""), 1);
    const auto again = Drop(kNamed);
    EXPECT_TRUE(again.ok() && !again->found());
  }
  EXPECT_EQ(Drop("").status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(Create(Spec(kNamed)).ok());
  EXPECT_EQ(FoundIn(kNamed), 0) << "it is another one";
  ASSERT_TRUE(Write(kNamed, "c", "new").ok());
  Open();
  EXPECT_EQ(FoundIn(kNamed), 1);
}

TEST_F(DroppedCollectionTest, MakesRoomForAnother) {
  for (int i = 1; i < 100; ++i) ASSERT_TRUE(Create(Spec(StrCat("c", i))).ok());
  EXPECT_EQ(ReasonOf(Create(Spec("one-too-many"))), Reason::kInvalidField);
  ASSERT_TRUE(Drop("c7").ok());
  EXPECT_TRUE(Create(Spec("one-too-many")).ok());
}

// A token that covers the making of a collection, or its end, is waited for before it is looked for.
TEST_F(DroppedCollectionTest, ATokenCoversIt) {
  shardpb::GetDocumentRequest request;
  request.set_collection(kNamed);
  request.set_document_id("a");
  shardpb::ReadBarrier& barrier = *request.mutable_barrier();
  *barrier.mutable_position() = shard_->position();
  barrier.mutable_position()->set_number(shard_->position().number() + 2);
  barrier.mutable_max_wait()->set_seconds(60);
  absl::StatusOr<shardpb::GetDocumentResponse> response;
  std::thread reader([&] { response = shard_->GetDocument(request, context_); });
  ASSERT_TRUE(Create(Spec(kNamed)).ok());
  ASSERT_TRUE(Write(kNamed, "a", "text").ok());
  reader.join();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->document().text(), "text");
  barrier.mutable_position()->set_number(shard_->position().number() + 1);
  std::thread late([&] { response = shard_->GetDocument(request, context_); });
  ASSERT_TRUE(Drop(kNamed).ok());
  late.join();
  EXPECT_EQ(ReasonOf(response.status()), Reason::kCollectionNotFound);
}

// A replica that was away is served the changes of collections that its primary no longer has, many in one group.
TEST_F(DroppedCollectionTest, AReplicaThatWasAwayGoesOverIt) {
  options_.replicated = true;
  options_.store.path = folder_ / "primary";
  Open();
  ASSERT_TRUE(shard_->Lead(2, {}).ok());
  for (const char* last : {"x", "y"}) {
    ASSERT_TRUE(Create(Spec(kNamed)).ok());
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(Write(kNamed, StrCat("d", i % 7), StrCat("text ", i)).ok());
    ASSERT_TRUE(Drop(kNamed)->found());
    ASSERT_TRUE(Create(Spec(last)).ok());
    ASSERT_TRUE(Write(last, "a", last).ok());
  }
  ASSERT_TRUE(Drop("x")->found());
  LocalShardOptions options = options_;
  options.store.path = folder_ / "follower";
  options.store.store_id = shard_->store().identity().store_id;
  auto follower = LocalShard::Open(options);
  ASSERT_TRUE(follower.ok()) << follower.status();
  std::vector<shardpb::PullChangesResponse> changes;
  constexpr size_t kAll = size_t{1} << 30;
  const absl::Status read = shard_->ReadChanges((*follower)->position(), kAll, kAll, {}, [&](auto change) {
    changes.push_back(std::move(change));
    return absl::OkStatus();
  });
  ASSERT_TRUE(read.ok()) << read;
  ASSERT_TRUE((*follower)->Replay(changes).ok());
  EXPECT_EQ((*follower)->store().ComputeDigest(context_)->sha256, shard_->store().ComputeDigest(context_)->sha256);
  const auto stats = (*follower)->Stats({}, context_)->stats();
  ASSERT_EQ(stats.collections_size(), 2);
  EXPECT_EQ(stats.collections(1).collection(), "y");
  EXPECT_EQ(stats.collections(1).documents(), 1u);
}

// Whoever is at it gets COLLECTION_NOT_FOUND, and what goes is not used by anybody.
TEST_F(DroppedCollectionTest, UnderLoad) {
  std::atomic<bool> stop = false;
  std::atomic<int> written = 0, found = 0, refused = 0;
  const auto count = [&](const absl::Status& status, std::atomic<int>& done) {
    EXPECT_TRUE(status.ok() || ReasonOf(status) == Reason::kCollectionNotFound) << status;
    ++(status.ok() ? done : refused);
  };
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t) {
    callers.emplace_back([&, t] {
      for (int i = 0; !stop; ++i) {
        count(Write(kNamed, StrCat("d", t, "-", i % 50), StrCat("some text ", i)), written);
        count(Search(kNamed).status(), found);
      }
    });
  }
  for (int round = 1; round <= 20; ++round) {
    EXPECT_TRUE(Create(Spec(kNamed)).ok());
    while (written < 20 * round || found < 20 * round) std::this_thread::yield();
    EXPECT_TRUE(Drop(kNamed)->found());
    EXPECT_EQ(ReasonOf(Search(kNamed).status()), Reason::kCollectionNotFound);
    while (refused < round) std::this_thread::yield();
  }
  stop = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(shard_->store().ComputeDigest(context_)->documents, 0u);
  for (uint32_t number = 1; number <= 20; ++number) AwaitRemoval(number);
  Open();
  EXPECT_EQ(shard_->Stats({}, context_)->stats().collections_size(), 1);
}

}  // namespace
}  // namespace retro
