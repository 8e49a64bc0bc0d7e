// Collections on several shards in this process, of which some refuse changes.
#include "retriever_service/ingest/collections.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "retriever_service/query/consistency_token.h"
#include "retriever_service/shard/local_shard.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

using testing::HasSubstr;

constexpr uint32_t kShards = 3;

pb::CollectionSpec OwnSpec() {
  pb::CollectionSpec spec;
  spec.set_tokenizer_fingerprint("tokenizer");
  spec.set_chunk_size(64);
  spec.set_embedder_fingerprint("embedder");
  spec.set_dimension(4);
  spec.set_metric(pb::METRIC_L2);
  return spec;
}

class CollectionsTest : public testing::Test {
 protected:
  CollectionsTest() {
    spdlog::set_level(spdlog::level::off);
    std::vector<std::unique_ptr<Shard>> shards;
    for (uint32_t i = 0; i < kShards; ++i) {
      LocalShardOptions options;
      options.store.path = folder_ / StrCat(i);
      options.store.store_id = "0123456789abcdef";
      options.store.shard = i;
      options.store.shard_count = kShards;
      options.default_collection = OwnSpec();
      auto shard = LocalShard::Open(options);
      EXPECT_TRUE(shard.ok()) << shard.status();
      locals_.push_back(shard->get());
      shards.push_back(*std::move(shard));
    }
    map_ = *ShardMap::Create(std::move(shards));
    pb::CollectionSpec own = OwnSpec();
    own.clear_chunk_size();
    own.set_self_test_vector("what the embedder makes of it");
    collections_ = std::make_unique<Collections>(*map_, own);
  }

  absl::StatusOr<pb::CreateCollectionResponse> Create(const std::string& name) {
    pb::CreateCollectionRequest request;
    request.mutable_spec()->set_name(name);
    return collections_->Create(request, CallContext());
  }
  absl::StatusOr<pb::DeleteCollectionResponse> Delete(const std::string& name) {
    pb::DeleteCollectionRequest request;
    request.set_name(name);
    return collections_->Delete(request, CallContext());
  }
  std::vector<std::string> List() {
    std::vector<std::string> names;
    const auto list = collections_->List(CallContext());
    EXPECT_TRUE(list.ok()) << list.status();
    for (const auto& spec : list->collections()) names.push_back(spec.name());
    return names;
  }
  bool Covers(const std::string& token) {
    const auto decoded = DecodeConsistencyToken(token, map_->store_id());
    for (uint32_t i = 0; i < kShards; ++i) {
      const auto newest = locals_[i]->GetShardInfo({}, CallContext())->position();
      if (!decoded.ok() || PositionOn(*decoded, i)->number() != newest.number()) return false;
    }
    return true;
  }

  TemporaryFolder folder_;
  std::vector<LocalShard*> locals_;
  std::unique_ptr<ShardMap> map_;
  std::unique_ptr<Collections> collections_;
};

// As deletions do while a primary hangs, more of them than there are threads.
TEST_F(CollectionsTest, ChangesThatWaitKeepNoReadFromAThread) {
  std::atomic<bool> may_end = false;
  std::atomic<int> waiting = 0;
  const auto wait = [&](uint32_t number, Shard&) {
    if (number > 0) ++waiting;
    while (!may_end) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return absl::OkStatus();
  };
  const int threads = 8 * static_cast<int>(map_->size());
  std::vector<std::thread> changes;
  for (int i = 0; i < threads; ++i) changes.emplace_back([&] { map_->ChangeAll(wait); });
  while (waiting < threads) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  for (const absl::Status& answer : map_->AskAll([](uint32_t, Shard&) { return absl::OkStatus(); })) {
    EXPECT_TRUE(answer.ok());
  }
  may_end = true;
  for (std::thread& change : changes) change.join();
}

TEST_F(CollectionsTest, AreMadeAndDroppedOnAllShards) {
  const auto made = Create("news");
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->spec().embedder_fingerprint(), "embedder");
  EXPECT_EQ(made->spec().tokenizer_fingerprint(), "tokenizer");
  EXPECT_EQ(made->spec().chunk_size(), 64u) << "the default collection's";
  EXPECT_EQ(made->spec().dimension(), 4u);
  EXPECT_EQ(made->spec().self_test_vector(), "what the embedder makes of it");
  EXPECT_TRUE(Covers(made->consistency_token()));
  EXPECT_TRUE(Create("news").ok()) << "the same again";
  EXPECT_THAT(List(), testing::ElementsAre("", "news"));
  EXPECT_TRUE(map_->Collection("news").ok());
  const auto dropped = Delete("news");
  ASSERT_TRUE(dropped.ok()) << dropped.status();
  EXPECT_TRUE(Covers(dropped->consistency_token()));
  EXPECT_EQ(ReasonOf(map_->Collection("news").status()), Reason::kCollectionNotFound);
  EXPECT_EQ(ReasonOf(Delete("news").status()), Reason::kCollectionNotFound);
  EXPECT_THAT(List(), testing::ElementsAre(""));
}

TEST_F(CollectionsTest, ACallThatFailedHalfwayIsFinishedByAnother) {
  locals_[1]->SetReadOnly(true);
  const auto made = Create("news");
  EXPECT_EQ(ReasonOf(made.status()), Reason::kWriteOutcomeUnknown);
  EXPECT_EQ(made.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(MessageOf(made.status())), HasSubstr("done on 2 of 3 shards, repeat"));
  EXPECT_THAT(List(), testing::ElementsAre("", "news")) << "somebody is to see it";
  locals_[1]->SetReadOnly(false);
  ASSERT_TRUE(Create("news").ok());
  locals_[0]->SetReadOnly(true);
  const auto dropped = Delete("news");
  EXPECT_EQ(ReasonOf(dropped.status()), Reason::kWriteOutcomeUnknown);
  EXPECT_THAT(std::string(MessageOf(dropped.status())), HasSubstr("done on 2 of 3 shards, repeat"));
  EXPECT_THAT(List(), testing::ElementsAre("", "news"));
  locals_[0]->SetReadOnly(false);
  EXPECT_TRUE(Delete("news").ok());
  EXPECT_THAT(List(), testing::ElementsAre(""));
  for (LocalShard* local : locals_) local->SetReadOnly(true);
  EXPECT_EQ(ReasonOf(Create("news").status()), Reason::kReadOnly) << "nothing was done";
}

TEST_F(CollectionsTest, WhatThisServerCannotUseIsNotMade) {
  pb::CreateCollectionRequest request;
  request.mutable_spec()->set_name("news");
  const auto reason = [&] { return ReasonOf(collections_->Create(request, CallContext()).status()); };
  request.mutable_spec()->set_embedder_fingerprint("another");
  EXPECT_EQ(reason(), Reason::kEmbedderMismatch);
  request.mutable_spec()->set_embedder_fingerprint("embedder");
  request.mutable_spec()->set_dimension(5);
  EXPECT_EQ(reason(), Reason::kEmbedderMismatch);
  request.mutable_spec()->set_dimension(4);
  request.mutable_spec()->set_chunk_size(32);
  EXPECT_EQ(reason(), Reason::kTokenizerMismatch);
  request.mutable_spec()->clear_chunk_size();
  request.mutable_spec()->set_tokenizer_fingerprint("another");
  EXPECT_EQ(reason(), Reason::kTokenizerMismatch);
  EXPECT_THAT(List(), testing::ElementsAre(""));
  pb::CollectionSpec other = OwnSpec();
  other.set_name("news");
  other.set_dimension(8);
  shardpb::CreateCollectionRequest by_other;
  *by_other.mutable_spec() = other;
  ASSERT_TRUE(locals_[2]->CreateCollection(by_other, CallContext()).ok());
  const absl::Status exists = Create("news").status();
  EXPECT_EQ(ReasonOf(exists), Reason::kCollectionExists);
  EXPECT_THAT(std::string(MessageOf(exists)), HasSubstr("2 of 3 shards have it nevertheless"));
}

TEST(AnswerOfAllTest, SaysThatNothingWasDoneOnlyIfThatIsSoOfAll) {
  const absl::Status ok;
  const absl::Status not_done = Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable, "nothing was done");
  const absl::Status unknown = Error(absl::StatusCode::kUnavailable, Reason::kWriteOutcomeUnknown, "who knows");
  EXPECT_TRUE(AnswerOfAll({ok, ok}, {true, false}).ok());
  EXPECT_EQ(AnswerOfAll({not_done, ok}, {false, false}), not_done);
  EXPECT_EQ(AnswerOfAll({not_done, not_done}, {false, false}), not_done);
  EXPECT_EQ(AnswerOfAll({not_done, unknown}, {false, false}), unknown);
  const absl::Status partly = AnswerOfAll({not_done, ok}, {false, true});
  EXPECT_EQ(ReasonOf(partly), Reason::kWriteOutcomeUnknown);
  EXPECT_THAT(std::string(MessageOf(partly)), HasSubstr("done on 1 of 2 shards, repeat it: nothing was done"));
}

// Through another router: a shard's answer counts, and whoever gets none from a shard asks.
TEST_F(CollectionsTest, ADropBySomebodyElseIsNoticed) {
  ASSERT_TRUE(Create("news").ok());
  ASSERT_TRUE(map_->Collection("news").ok());
  shardpb::DropCollectionRequest drop;
  drop.set_name("news");
  for (LocalShard* local : locals_) ASSERT_TRUE(local->DropCollection(drop, CallContext()).ok());
  EXPECT_TRUE(map_->Collection("news").ok()) << "as it was read";
  shardpb::GetDocumentRequest get;
  get.set_collection("news");
  const absl::Status answer = map_->Heed(map_->shard(0).GetDocument(get, CallContext()).status(), "news");
  EXPECT_EQ(ReasonOf(answer), Reason::kCollectionNotFound);
  EXPECT_EQ(ReasonOf(map_->Collection("news").status()), Reason::kCollectionNotFound);
  ASSERT_TRUE(Create("news").ok());
  ASSERT_TRUE(map_->Collection("news").ok());
  for (LocalShard* local : locals_) ASSERT_TRUE(local->DropCollection(drop, CallContext()).ok());
  EXPECT_EQ(ReasonOf(map_->CollectionNow("news", CallContext()).status()), Reason::kCollectionNotFound);
  EXPECT_TRUE(map_->CollectionNow("", CallContext()).ok());
}

}  // namespace
}  // namespace retro
