#include "retriever_service/shard/local_shard.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/time_util.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/base/sync.h"
#include "retriever_service/query/limits.h"
#include "retriever_service/store/layout.h"
#include "tests/local_shard_fixture.h"

namespace retro {
namespace {

// ---------------------------------------------------------------- writing

TEST_F(LocalShardTest, FirstTryOfANewDocumentNeedsChunks) {
  const pb::Document document = MakeDocument("a", "some text");
  EXPECT_EQ(Write(FirstTry(document)).outcome(), shardpb::CHANGE_OUTCOME_NEEDS_CHUNKS);
  const shardpb::ChangeResult result = Write(Whole(document, {1, 0, 0, 0}));
  EXPECT_EQ(result.outcome(), shardpb::CHANGE_OUTCOME_CREATED);
  EXPECT_EQ(result.chunk_count(), 3u);
  EXPECT_EQ(Get("a")->document().SerializeAsString(), document.SerializeAsString());
}

TEST_F(LocalShardTest, CompactingEmptiesTheLogOfAShardWithoutReplicas) {
  for (int i = 0; i < 5; ++i) Write(Whole(MakeDocument("a", StrCat("text ", i)), {1, 0, 0, 0}));
  EXPECT_EQ(shard_->store().log_start().number(), 1u);
  ASSERT_TRUE(shard_->Compact().ok());
  EXPECT_EQ(shard_->store().log_start().number(), LastNumber());
  EXPECT_EQ(Get("a")->document().text(), "text 4");
  options_.replicated = true;
  options_.store.log_changes_max = 3;
  Open();
  ASSERT_TRUE(shard_->Lead(2, {}).ok());
  for (int i = 0; i < 3; ++i) Write(Whole(MakeDocument("a", StrCat("more ", i)), {1, 0, 0, 0}));
  ASSERT_TRUE(shard_->Compact().ok());
  EXPECT_EQ(shard_->store().log_start().number(), LastNumber() - 2) << "others may have to catch up from it";
}

// Every chunk that is left to be sealed is compared by every search: what fills the index must not run ahead.
TEST_F(LocalShardTest, ChangesPassSlowlyWhileSealingFails) {
  constexpr size_t kSealRows = 256;
  constexpr std::chrono::seconds kSlowAtLeast{1};
  options_.index.seal_rows = kSealRows;
  Open();
  std::filesystem::remove_all(options_.store.path + "/index");
  ASSERT_TRUE(WriteFileAtomically(options_.store.path + "/index", "where its folder should be").ok());
  const std::string text(4 * kSealRows, 'x');
  for (size_t i = 0; i <= kFrozenMax; ++i) Write(Whole(MakeDocument(StrCat(i), text), {1, 0, 0, 0}));
  EXPECT_FALSE(shard_->WaitForIndexes(kFrozenMax, absl::ZeroDuration()).ok());
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(Write(Whole(MakeDocument("late", "late"), {0, 1, 0, 0})).has_error());
  EXPECT_GE(std::chrono::steady_clock::now() - start, kSlowAtLeast);
  EXPECT_EQ(Search({0, 1, 0, 0}, 1).results(0).neighbours(0).document_id(), "late");
}

TEST_F(LocalShardTest, SameContentIsUnchangedAndWritesNothing) {
  const pb::Document document = MakeDocument("a", "some text");
  Write(Whole(document, {1, 0, 0, 0}));
  const uint64_t before = LastNumber();
  const shardpb::ChangeResult result = Write(FirstTry(document));
  EXPECT_EQ(result.outcome(), shardpb::CHANGE_OUTCOME_UNCHANGED);
  EXPECT_EQ(result.chunk_count(), 3u);
  EXPECT_EQ(LastNumber(), before);
}

TEST_F(LocalShardTest, MetadataAloneKeepsTextAndVectors) {
  pb::Document document = MakeDocument("a", "some text");
  Write(Whole(document, {1, 0, 0, 0}));
  (*document.mutable_metadata())["tag"].add_values()->set_string_value("red");
  EXPECT_EQ(Write(FirstTry(document)).outcome(), shardpb::CHANGE_OUTCOME_REPLACED);
  EXPECT_EQ(Get("a")->document().text(), "some text");
  for (const bool reopened : {false, true}) {
    if (reopened) Open();
    const auto response = Search({1, 0, 0, 0}, 10);
    ASSERT_EQ(response.results(0).neighbours_size(), 3);
    EXPECT_EQ(response.results(0).neighbours(0).distance(), 0);
    EXPECT_EQ(response.results(0).neighbours(0).metadata().at("tag").values(0).string_value(), "red");
    EXPECT_EQ(response.results(0).neighbours(0).content_hash(), ContentHash(document));
  }
}

TEST_F(LocalShardTest, NewTextReplaces) {
  Write(Whole(MakeDocument("a", "some text"), {1, 0, 0, 0}));
  const pb::Document changed = MakeDocument("a", "other");
  EXPECT_EQ(Write(FirstTry(changed)).outcome(), shardpb::CHANGE_OUTCOME_NEEDS_CHUNKS);
  EXPECT_EQ(Get("a")->document().text(), "some text");
  EXPECT_EQ(Write(Whole(changed, {0, 1, 0, 0})).outcome(), shardpb::CHANGE_OUTCOME_REPLACED);
  EXPECT_EQ(Get("a")->document().text(), "other");
  const auto response = Search({1, 0, 0, 0}, 10);
  ASSERT_EQ(response.results(0).neighbours_size(), 2);
  EXPECT_EQ(response.results(0).neighbours(0).chunk().text(), "othe");
  EXPECT_EQ(response.results(0).neighbours(0).continuation().text(), "r");
  EXPECT_FALSE(response.results(0).neighbours(1).has_continuation());
}

TEST_F(LocalShardTest, OfEqualIdsTheLaterWins) {
  const auto response = shard_->Write(
      Request({Whole(MakeDocument("a", "first"), {1, 0, 0, 0}), Whole(MakeDocument("b", "other"), {1, 0, 0, 0}),
               Whole(MakeDocument("a", "second"), {1, 0, 0, 0})}),
      context_);
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->results(0).outcome(), shardpb::CHANGE_OUTCOME_CREATED);
  EXPECT_EQ(response->results(2).outcome(), shardpb::CHANGE_OUTCOME_REPLACED);
  EXPECT_EQ(Get("a")->document().text(), "second");
  EXPECT_EQ(Search({1, 0, 0, 0}, 10).results(0).neighbours_size(), 4);
}

TEST_F(LocalShardTest, OlderExternalVersionsAreRefused) {
  pb::Document document = MakeDocument("a", "three");
  document.set_external_version(3);
  Write(Whole(document, {1, 0, 0, 0}));
  document.set_external_version(5);
  EXPECT_EQ(Write(FirstTry(document)).outcome(), shardpb::CHANGE_OUTCOME_UNCHANGED);
  EXPECT_EQ(Get("a")->document().external_version(), 5u);
  document.set_text("four");
  document.set_external_version(4);
  const shardpb::ChangeResult result = Write(Whole(document, {1, 0, 0, 0}));
  EXPECT_EQ(result.error().reason(), "VERSION_TOO_OLD");
  EXPECT_EQ(result.error().code(), static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(Get("a")->document().text(), "three");
}

TEST_F(LocalShardTest, ABadChangeFailsAlone) {
  shardpb::DocumentChange wide = Whole(MakeDocument("wide", "text"), {1, 0, 0, 0, 0});
  shardpb::DocumentChange infinite = Whole(MakeDocument("infinite", "text"), {1e9F, 0, 0, 0});
  shardpb::DocumentChange shorter = Whole(MakeDocument("short", "long text"), {1, 0, 0, 0});
  shorter.mutable_chunks()->RemoveLast();
  shardpb::DocumentChange inside = Whole(MakeDocument("inside", "abc\xC3\xA4xyz"), {1, 0, 0, 0});
  const auto response = shard_->Write(
      Request({wide, infinite, shorter, inside, Whole(MakeDocument("good", "text"), {1, 0, 0, 0})}), context_);
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->results(0).error().field(), "chunks[0].vector_fp16");
  EXPECT_EQ(response->results(1).error().field(), "chunks[0].vector_fp16");
  EXPECT_EQ(response->results(2).error().field(), "chunks");
  EXPECT_EQ(response->results(3).error().field(), "chunks[0].end");
  EXPECT_EQ(response->results(4).outcome(), shardpb::CHANGE_OUTCOME_CREATED);
  EXPECT_FALSE(Get("wide").ok());
}

TEST_F(LocalShardTest, ForeignVectorsChunksAndEpochsAreRefused) {
  shardpb::WriteRequest request = Request({Whole(MakeDocument("a", "text"), {1, 0, 0, 0})});
  request.set_embedder_fingerprint("another");
  EXPECT_EQ(ReasonOf(shard_->Write(request, context_).status()), Reason::kEmbedderMismatch);
  request.set_embedder_fingerprint(kEmbedder);
  request.set_tokenizer_fingerprint("another");
  EXPECT_EQ(ReasonOf(shard_->Write(request, context_).status()), Reason::kTokenizerMismatch);
  request.set_tokenizer_fingerprint(kTokenizer);
  request.set_collection("none");
  EXPECT_EQ(ReasonOf(shard_->Write(request, context_).status()), Reason::kCollectionNotFound);
  request.clear_collection();
  CallContext gone;
  gone.cancelled = [] { return true; };
  EXPECT_EQ(shard_->Write(request, gone).status().code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(Get("a").ok());
}

TEST_F(LocalShardTest, CallersSideBySideAllGetTheirOwn) {
  constexpr int kThreads = 8, kEach = 50;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  std::atomic<int> created = 0;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const pb::Document document = MakeDocument(StrCat(t, "-", i), StrCat("text ", i));
        created += Write(Whole(document, {1, 0, 0, 0})).outcome() == shardpb::CHANGE_OUTCOME_CREATED;
        EXPECT_TRUE(Get(document.id()).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(created, kThreads * kEach);
  EXPECT_EQ(LastNumber(), 1u + kThreads * kEach);  // the first made the collection
}

// ---------------------------------------------------------------- reading

TEST_F(LocalShardTest, ReplacementIsSeenWholeOrNotAtAll) {
  const auto text_of = [](int version) {
    return std::string(4, 'a' + version % 26) + std::string(4, 'A' + version % 26);
  };
  Write(Whole(MakeDocument("a", text_of(0)), {1, 0, 0, 0}));
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int version = 1; version < 200; ++version) {
      pb::Document document = MakeDocument("a", text_of(version));
      document.set_title(text_of(version));
      Write(Whole(document, {1, 0, 0, 0}));
    }
    done = true;
  });
  while (!done) {
    const auto response = Search({1, 0, 0, 0}, 10);
    ASSERT_EQ(response.results(0).neighbours_size(), 2);
    const auto& first = response.results(0).neighbours(0);
    const auto& second = response.results(0).neighbours(1);
    EXPECT_EQ(first.content_hash(), second.content_hash());
    EXPECT_EQ(first.continuation().text(), second.chunk().text());
    EXPECT_EQ(first.chunk().text()[0] - 'a', second.chunk().text()[0] - 'A');
    const auto document = Get("a");
    ASSERT_TRUE(document.ok());
    EXPECT_EQ(document->info().content_hash(), ContentHash(document->document()));
  }
  writer.join();
}

TEST_F(LocalShardTest, SearchHonoursFieldsExclusionsAndBadInput) {
  Write(Whole(MakeDocument("near", "text"), {1, 0, 0, 0}));
  Write(Whole(MakeDocument("far", "text"), {3, 0, 0, 0}));
  shardpb::SearchRequest request;
  request.set_k(5);
  auto& query = *request.add_queries();
  for (const float x : {1.0F, 0.0F, 0.0F, 0.0F}) query.mutable_vector()->add_values(x);
  query.add_exclude_document_ids("near");
  request.mutable_fields()->set_text(false);
  auto response = shard_->Search(request, context_);
  ASSERT_TRUE(response.ok());
  ASSERT_EQ(response->results(0).neighbours_size(), 1);
  EXPECT_EQ(response->results(0).neighbours(0).document_id(), "far");
  EXPECT_EQ(response->results(0).neighbours(0).distance(), 4);
  EXPECT_EQ(response->results(0).neighbours(0).chunk().text(), "");
  EXPECT_EQ(response->results(0).neighbours(0).chunk().byte_range().end(), 4u);
  EXPECT_EQ(response->results(0).neighbours(0).chunk().token_ids_size(), 1);
  request.set_max_distance(1);
  EXPECT_EQ(shard_->Search(request, context_)->results(0).neighbours_size(), 0);
  request.set_k(0);
  EXPECT_EQ(FieldOf(shard_->Search(request, context_).status()), "k");
  request.set_k(1);
  query.mutable_vector()->set_values(2, std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(FieldOf(shard_->Search(request, context_).status()), "queries[0].vector");
  query.mutable_vector()->add_values(1);
  EXPECT_EQ(FieldOf(shard_->Search(request, context_).status()), "queries[0].vector");
}

// As a router's: it need not be one that asks.
TEST_F(LocalShardTest, QueriesAndExclusionsAreBounded) {
  shardpb::SearchRequest request;
  request.set_k(1);
  EXPECT_EQ(FieldOf(shard_->Search(request, context_).status()), "queries");
  while (request.queries_size() <= kQueriesMax) {
    auto& vector = *request.add_queries()->mutable_vector();
    for (uint32_t i = 0; i < kDimension; ++i) vector.add_values(1);
  }
  EXPECT_EQ(FieldOf(shard_->Search(request, context_).status()), "queries");
  request.mutable_queries()->RemoveLast();
  const int per_query_max = kExcludedPerQueryMax + kExcludedMax;  // as an earlier router sends them
  for (int i = 0; i < per_query_max; ++i) request.mutable_queries(1)->add_exclude_document_ids("a");
  for (int i = 0; i < kExcludedMax; ++i) request.add_exclude_document_ids("b");
  const absl::Status most = shard_->Search(request, context_).status();
  EXPECT_TRUE(most.ok()) << most;
  request.add_exclude_document_ids("b");
  const absl::Status refused = shard_->Search(request, context_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(refused), "exclude_document_ids");
  request.mutable_queries(1)->add_exclude_document_ids("a");
  EXPECT_EQ(FieldOf(shard_->Search(request, context_).status()), "queries[1].exclude_document_ids");
}

// Neither counting what a filter would delete nor finding it goes on for nobody.
TEST_F(LocalShardTest, WhoLeavesDeletesAndCountsNothingMore) {
  Write(Whole(MakeDocument("a", "text"), {1, 0, 0, 0}));
  shardpb::DeleteRequest request;
  request.mutable_filter()->mutable_exists()->mutable_field()->set_builtin(pb::BUILTIN_FIELD_ID);
  CallContext gone;
  gone.cancelled = [] { return true; };
  for (const bool dry : {true, false}) {
    request.set_dry_run(dry);
    EXPECT_EQ(shard_->Delete(request, gone).status().code(), absl::StatusCode::kCancelled) << dry;
  }
  EXPECT_TRUE(Get("a").ok());
}

TEST_F(LocalShardTest, GetChunksPagesWithVectors) {
  Write(Whole(MakeDocument("a", "0123456789"), {0.5F, -2, 0, 1}));
  shardpb::GetChunksRequest request;
  request.set_document_id("a");
  request.set_first_chunk(1);
  request.set_max_chunks(5);
  request.set_include_vectors(true);
  const auto response = shard_->GetChunks(request, context_);
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->chunk_count(), 3u);
  ASSERT_EQ(response->chunks_size(), 2);
  EXPECT_EQ(response->chunks(0).text(), "4567");
  EXPECT_EQ(response->chunks(1).byte_range().begin(), 8u);
  EXPECT_THAT(response->vectors(1).values(), testing::ElementsAre(0.5F, -2, 0, 1));
  request.set_first_chunk(9);
  EXPECT_EQ(shard_->GetChunks(request, context_)->chunks_size(), 0);
}

TEST_F(LocalShardTest, ListsAllDocumentsPageByPage) {
  std::map<std::string, int> expected;
  for (int i = 0; i < 25; ++i) {
    pb::Document document = MakeDocument(StrCat("d", i), "text");
    (*document.mutable_metadata())["n"].add_values()->set_int_value(i);
    Write(Whole(document, {1, 0, 0, 0}));
    if (i >= 5) ++expected[document.id()];
  }
  shardpb::ListDocumentsRequest request;
  request.set_page_size(4);
  request.mutable_filter()->mutable_range()->mutable_field()->set_metadata_key("n");
  request.mutable_filter()->mutable_range()->mutable_at_least()->set_int_value(5);
  std::map<std::string, int> seen;
  std::pair<uint32_t, std::string> last = {0, ""};
  for (int page = 0; page < 10; ++page) {
    const auto response = shard_->ListDocuments(request, context_);
    ASSERT_TRUE(response.ok());
    EXPECT_LE(response->documents_size(), 4);
    for (const auto& summary : response->documents()) {
      const std::pair<uint32_t, std::string> place = {SlotOfDocument(summary.document().id()), summary.document().id()};
      EXPECT_LT(last, place);
      last = place;
      ++seen[summary.document().id()];
      EXPECT_EQ(summary.document().text(), "");
      EXPECT_EQ(summary.info().text_bytes(), 4u);
    }
    if (!response->has_next()) break;
    *request.mutable_after() = response->next();
  }
  EXPECT_EQ(seen, expected);
}

TEST_F(LocalShardTest, APageOfLargeMetadataIsShort) {
  const std::string large(4096, 'm');
  for (int i = 0; i < 8; ++i) {
    pb::Document document = MakeDocument(StrCat("d", i), "text");
    auto& values = (*document.mutable_metadata())["m"];
    for (int v = 0; v < 200; ++v) values.add_values()->set_string_value(large);
    Write(Whole(document, {1, 0, 0, 0}));
  }
  shardpb::ListDocumentsRequest request;
  request.set_page_size(100);
  int seen = 0;
  int pages = 0;
  while (true) {
    const auto response = shard_->ListDocuments(request, context_);
    ASSERT_TRUE(response.ok());
    EXPECT_LT(response->ByteSizeLong(), size_t{4} << 20) << "what a gRPC client takes if not told otherwise";
    seen += response->documents_size();
    ++pages;
    if (!response->has_next()) break;
    *request.mutable_after() = response->next();
  }
  EXPECT_EQ(seen, 8);
  EXPECT_GT(pages, 1);
}

TEST_F(LocalShardTest, BarrierWaitsForItsPosition) {
  shardpb::GetDocumentRequest request;
  request.set_document_id("a");
  request.mutable_barrier()->mutable_position()->set_epoch(1);
  request.mutable_barrier()->mutable_position()->set_number(2);
  const absl::Status behind = shard_->GetDocument(request, context_).status();
  EXPECT_EQ(behind.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(behind), Reason::kBehindToken);
  EXPECT_THAT(std::string(MessageOf(behind)), testing::HasSubstr("1 changes behind"));
  request.mutable_barrier()->mutable_max_wait()->set_seconds(60);
  absl::StatusOr<shardpb::GetDocumentResponse> response;
  std::thread reader([&] { response = shard_->GetDocument(request, context_); });
  Write(Whole(MakeDocument("a", "text"), {1, 0, 0, 0}));
  reader.join();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->document().text(), "text");
  request.mutable_barrier()->mutable_position()->set_epoch(2);
  CallContext hurried;
  hurried.deadline = std::chrono::steady_clock::now();
  EXPECT_EQ(shard_->GetDocument(request, hurried).status().code(), absl::StatusCode::kDeadlineExceeded);
}

// As after a restore: the shard leads in a later epoch, and what the token stands for is gone.
TEST_F(LocalShardTest, BarrierOfALostChangeIsNotCoveredByALaterEpoch) {
  Write(Whole(MakeDocument("a", "text"), {1, 0, 0, 0}));
  shardpb::GetDocumentRequest request;
  request.set_document_id("a");
  request.mutable_barrier()->mutable_position()->set_epoch(0);
  request.mutable_barrier()->mutable_position()->set_number(500);
  const absl::Status behind = shard_->GetDocument(request, context_).status();
  EXPECT_EQ(ReasonOf(behind), Reason::kBehindToken) << behind;
  EXPECT_THAT(std::string(MessageOf(behind)), testing::HasSubstr("498 changes behind"));
}

// Each that waits holds a thread: the others must be left to calls that could be answered.
TEST_F(LocalShardTest, OnlySoManyWaitForTheirPosition) {
  Write(Whole(MakeDocument("a", "text"), {1, 0, 0, 0}));
  shardpb::GetDocumentRequest request;
  request.set_document_id("a");
  request.mutable_barrier()->mutable_position()->set_epoch(1);
  request.mutable_barrier()->mutable_position()->set_number(1'000'000);
  request.mutable_barrier()->mutable_max_wait()->set_seconds(3600);
  std::atomic<bool> leave = false;
  std::atomic<int> waiting = 0;
  std::vector<std::thread> waiters;
  waiters.reserve(options_.waiting_reads_max);
  for (int i = 0; i < options_.waiting_reads_max; ++i) {
    waiters.emplace_back([&] {
      bool counted = false;
      CallContext call;
      call.cancelled = [&] {
        if (!std::exchange(counted, true)) ++waiting;
        return leave.load();
      };
      EXPECT_EQ(shard_->GetDocument(request, call).status().code(), absl::StatusCode::kCancelled);
    });
  }
  while (waiting < options_.waiting_reads_max) std::this_thread::yield();
  for (const bool briefly : {false, true}) {
    bool waits = false;
    CallContext call;
    call.cancelled = [&waits] { return waits = true, false; };
    if (briefly)
      request.mutable_barrier()->mutable_max_wait()->CopyFrom(
          google::protobuf::util::TimeUtil::MillisecondsToDuration(50));
    EXPECT_EQ(ReasonOf(shard_->GetDocument(request, call).status()), Reason::kBehindToken) << "one too many";
    EXPECT_EQ(waits, briefly) << "as any may";
  }
  EXPECT_TRUE(Get("a").ok()) << "nobody else is in the way";
  leave = true;
  for (std::thread& waiter : waiters) waiter.join();
  request.mutable_barrier()->clear_max_wait();
  request.mutable_barrier()->mutable_position()->set_number(2);
  EXPECT_TRUE(shard_->GetDocument(request, context_).ok());
}

TEST_F(LocalShardTest, StatsAndInfoTellWhatIsThere) {
  Write(Whole(MakeDocument("a", "some text"), {1, 0, 0, 0}));
  Write(Whole(MakeDocument("a", "other"), {1, 0, 0, 0}));
  for (const bool reopened : {false, true}) {
    if (reopened) Open();
    const auto stats = shard_->Stats({}, context_)->stats();
    ASSERT_EQ(stats.collections_size(), 1);
    EXPECT_EQ(stats.collections(0).documents(), 1u);
    EXPECT_EQ(stats.collections(0).chunks(), 2u);
    EXPECT_EQ(stats.collections(0).text_bytes(), 5u);
    EXPECT_EQ(stats.collections(0).segments(0).deleted(), reopened ? 0u : 3u);
    EXPECT_EQ(stats.position(), 3u);
    EXPECT_GT(stats.disk_bytes(), 0u);
    const auto info = shard_->GetShardInfo({}, context_);
    EXPECT_EQ(info->store_id().size(), kStoreIdBytes);
    EXPECT_EQ(info->collections(0).embedder_fingerprint(), kEmbedder);
    EXPECT_EQ(info->position().number(), 3u);
  }
}

// ---------------------------------------------------------------- as one of several replicas

// An index copies as many numbers as the record has rows of.
TEST_F(LocalShardTest, AReplicatedVectorOfAnotherSizeIsRefused) {
  Write(Whole(MakeDocument("a", "some text"), {1, 0, 0, 0}));
  const shardpb::Position before = shard_->position();
  std::vector<shardpb::PullChangesResponse> changes(1);
  shardpb::Change& change = *changes[0].mutable_change();
  change.mutable_position()->set_epoch(before.epoch());
  change.mutable_position()->set_number(before.number() + 1);
  shardpb::DocumentRecord& record = *change.mutable_put()->mutable_record();
  record.mutable_document()->set_id("b");
  record.mutable_chunks()->set_first_chunk_id(MakeChunkId(1000, SlotOfDocument("b")));
  record.mutable_chunks()->set_count(1);
  shardpb::ReplicatedChunk& chunk = *changes[0].add_chunks();
  chunk.set_chunk_id(record.chunks().first_chunk_id());
  chunk.mutable_record()->set_document_id("b");
  for (const size_t dimension : {kDimension - 1, kDimension + 1}) {
    chunk.set_vector_fp16(ToHalf(std::vector<float>(dimension, 1)));
    const absl::Status status = shard_->Replay(changes);
    EXPECT_EQ(ReasonOf(status), Reason::kStoreDamaged) << status;
  }
  EXPECT_EQ(shard_->position().number(), before.number());
  chunk.set_vector_fp16(ToHalf(std::vector<float>(kDimension, 1)));
  const absl::Status status = shard_->Replay(changes);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(Search({1, 1, 1, 1}, 1).results(0).neighbours(0).document_id(), "b");
}

TEST_F(LocalShardTest, WhatLastsLongEndsOnceItsStoreIsToBeReplaced) {
  Write(Whole(MakeDocument("a", "some text"), {1, 0, 0, 0}));
  shardpb::GetDocumentRequest request;
  request.set_document_id("a");
  request.mutable_barrier()->mutable_position()->set_epoch(1);
  request.mutable_barrier()->mutable_position()->set_number(1'000'000);
  request.mutable_barrier()->mutable_max_wait()->set_seconds(3600);
  std::atomic<bool> waits = false;
  CallContext call;
  call.cancelled = [&] {
    waits = true;
    return false;
  };
  std::thread reader([&] { EXPECT_EQ(ReasonOf(shard_->GetDocument(request, call).status()), Reason::kBehindToken); });
  while (!waits) std::this_thread::yield();
  const auto go_on = [] { return absl::OkStatus(); };
  EXPECT_TRUE(shard_->CheckOpen().ok());
  EXPECT_TRUE(shard_->Copy(options_.store.path + "/copy", go_on).ok());
  EXPECT_TRUE(shard_->ComputeDigest(context_).ok());
  shard_->BeginClosing();
  reader.join();
  const std::string second = options_.store.path + "/second copy";
  for (const absl::Status& status : {shard_->CheckOpen(), shard_->Copy(second, go_on),
                                     shard_->ComputeDigest(context_).status(), shard_->Compact()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(ReasonOf(status), Reason::kShardUnavailable) << status;
  }
  EXPECT_FALSE(std::filesystem::exists(second));
  EXPECT_TRUE(Get("a").ok()) << "what is short goes on";
}

// ---------------------------------------------------------------- opening

TEST_F(LocalShardTest, StoreOfAnotherEmbedderOrTokenizerIsRefused) {
  shard_.reset();
  options_.default_collection->set_embedder_fingerprint("another");
  absl::Status status = LocalShard::Open(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), Reason::kEmbedderMismatch);
  EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr(options_.store.path));
  options_.default_collection = DefaultSpec();
  options_.default_collection->set_tokenizer_fingerprint("another");
  EXPECT_EQ(ReasonOf(LocalShard::Open(options_).status()), Reason::kTokenizerMismatch);
}

TEST_F(LocalShardTest, CollectionsAreApart) {
  pb::CollectionSpec spec = DefaultSpec();
  spec.set_name("small");
  spec.set_dimension(2);
  shardpb::CreateCollectionRequest create;
  *create.mutable_spec() = spec;
  ASSERT_TRUE(shard_->CreateCollection(create, context_).ok());
  Write(Whole(MakeDocument("a", "text"), {1, 0, 0, 0}));
  shardpb::WriteRequest request = Request({Whole(MakeDocument("a", "other"), {1, 0})});
  request.set_collection("small");
  ASSERT_TRUE(shard_->Write(request, context_).ok());
  for (const bool reopened : {false, true}) {
    if (reopened) Open();
    EXPECT_EQ(Get("a")->document().text(), "text");
    shardpb::GetDocumentRequest get;
    get.set_collection("small");
    get.set_document_id("a");
    EXPECT_EQ(shard_->GetDocument(get, context_)->document().text(), "other");
    EXPECT_EQ(Search({1, 0, 0, 0}, 10).results(0).neighbours_size(), 1);
  }
}

}  // namespace
}  // namespace retro
