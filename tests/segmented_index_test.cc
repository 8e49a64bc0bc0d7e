#include "retriever_service/index/segmented_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <thread>

#include "absl/time/time.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/index/growing_segment.h"
#include "retriever_service/store/layout.h"
#include "tests/index_model.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr int kDimension = 24;
constexpr uint32_t kSmallBlock = 64;
constexpr uint32_t kSeed = 20240607;
constexpr uint64_t kNeverSealed = 1 << 30;
const shardpb::Position kPosition = MakePosition(1, 1 << 20);

SegmentedIndexOptions Options(const std::string& folder, uint64_t seal_rows, int dimension = kDimension) {
  SegmentedIndexOptions options;
  options.settings.seal_rows = seal_rows;
  options.folder = folder + "/index";
  options.identity = {std::string(16, 's'), 7, dimension, options.settings.kind};
  options.block_rows = kSmallBlock;
  options.background = false;
  return options;
}

// All that is due; how much it was.
int Settle(SegmentedIndex& index) {
  int done = 0;
  while (true) {
    const absl::StatusOr<bool> did = index.Maintain();
    EXPECT_TRUE(did.ok()) << did.status();
    if (!did.ok() || !*did) return done;
    ++done;
  }
}

std::vector<std::vector<float>> ClusteredVectors(IndexModel& model, int count, uint32_t clusters) {
  std::vector<std::vector<float>> vectors;
  vectors.reserve(count);
  for (int i = 0; i < count; ++i) vectors.push_back(model.ClusteredVector(clusters));
  return vectors;
}

// Every kind of option against the oracle.
void ExpectEqualsBruteForce(IndexModel& model, const SegmentedIndex& index) {
  const CompiledFilter common = GroupBelow(700), rare = GroupBelow(20);
  for (const CompiledFilter* filter : {static_cast<const CompiledFilter*>(nullptr), &common, &rare}) {
    for (const uint32_t per_document : {0, 1, 3}) {
      IndexSearchOptions options{.k = 10, .filter = filter, .chunks_per_document_max = per_document};
      if (per_document == 1) options.max_distance = 100;
      std::vector<std::vector<float>> vectors;
      std::vector<IndexQuery> queries;
      vectors.reserve(5);
      queries.reserve(5);
      for (int q = 0; q < 5; ++q) vectors.push_back(model.RandomVector());
      for (const auto& vector : vectors) queries.push_back({vector, {}});
      for (int i = 0; i < 40; ++i) queries[4].excluded_ids.insert(StrCat("doc", i));
      const auto hits = index.Search(queries, options, CallContext());
      ASSERT_TRUE(hits.ok());
      for (size_t q = 0; q < queries.size(); ++q) {
        EXPECT_EQ(Flatten(hits->hits[q]), model.BruteForce(queries[q], options)) << "query " << q;
      }
    }
  }
  const IndexStats stats = index.Stats();
  EXPECT_EQ(stats.documents, model.documents().size());
  EXPECT_EQ(stats.chunks, model.chunks());
  uint64_t live = 0;
  for (const SegmentSize& segment : stats.segments) live += segment.rows - segment.deleted;
  EXPECT_EQ(live, stats.chunks);
}

// ---------------------------------------------------------------- exact

TEST(SegmentedIndexTest, EqualsBruteForceWhileItGrows) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndex index(Options(folder.path(), kNeverSealed), kPosition);
  index.Filled();
  for (int round = 0; round < 20; ++round) {
    SCOPED_TRACE(StrCat("seed ", kSeed, " round ", round));
    for (int step = 0; step < 30; ++step) index.Apply(model.Churn(1 + step % 8, 150), kPosition);
    ExpectEqualsBruteForce(model, index);
  }
  const IndexStats stats = index.Stats();
  ASSERT_EQ(stats.segments.size(), 1u);
  EXPECT_LT(stats.segments[0].rows, stats.chunks * 5) << "emptied blocks are given up";
  EXPECT_EQ(stats.state, pb::INDEX_STATE_EXACT);
}

// Documents that stay where they were written first, and one that is written over for ever.
TEST(GrowingSegmentTest, KeepsNothingOfWhatIsGone) {
  GrowingSegment segment(kDimension, kSmallBlock);
  const std::string vectors(kSmallBlock * kDimension * kHalfBytes, '\0');
  const auto document = [](uint64_t counter, uint32_t chunks) {
    auto made = std::make_shared<IndexedDocument>();
    made->id = StrCat(counter);
    made->first_chunk_id = MakeChunkId(counter, 0);
    made->chunk_count = chunks;
    return made;
  };
  segment.Append(document(1, kSmallBlock / 2), vectors);  // half of a block stays
  uint64_t counter = kSmallBlock;
  for (uint64_t step = 1; step < 1000; ++step, counter += kSmallBlock) {
    const uint64_t row = segment.Append(document(counter, kSmallBlock), vectors);
    segment.Remove(row, kSmallBlock, step);
    segment.GiveUpEmptyBlocks();
    ASSERT_LE(segment.Take().blocks.size(), 3u);
    ASSERT_EQ(segment.live_rows(), kSmallBlock / 2);
    std::string room;
    ASSERT_EQ(segment.VectorsOf(0, kSmallBlock / 2, room).size(), vectors.size() / 2);
  }
  const auto last = document(counter, 2);
  segment.Append(last, vectors);
  std::vector<std::string> ids;
  segment.Visit(segment.Take(), kNewestStep, /*filter=*/nullptr,
                [&](const auto& seen, uint64_t) { ids.push_back(seen->id); });
  EXPECT_THAT(ids, testing::ElementsAre("1", last->id));
}

// Inserts, replacements and deletions between any two steps of sealing and merging, and a restart now and then.
TEST(SegmentedIndexTest, EqualsBruteForceWhileItSealsMergesAndRestarts) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  const SegmentedIndexOptions options = Options(folder.path(), 300);
  auto index = std::make_unique<SegmentedIndex>(options, kPosition);
  index->Filled();
  int maintained = 0, restarted_with_segments = 0;
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(StrCat("seed ", kSeed, " round ", round));
    for (int step = 0; step < 10; ++step) {
      index->Apply(model.Churn(20, 600), kPosition);
      if (model.random()() % 3 == 0) maintained += *index->Maintain() ? 1 : 0;
    }
    ExpectEqualsBruteForce(model, *index);
    if (model.random()() % 4 != 0) continue;
    index = std::make_unique<SegmentedIndex>(options, kPosition);
    restarted_with_segments += index->has_sealed_segments() ? 1 : 0;
    model.Fill(*index);
    ExpectEqualsBruteForce(model, *index);
  }
  EXPECT_GT(maintained, 20);
  EXPECT_GT(restarted_with_segments, 3);
  const std::vector<std::vector<float>> vectors = {model.RandomVector(), model.RandomVector(), model.RandomVector()};
  EXPECT_GE(Recall(*index, vectors, {.k = 10, .effort = 1}), 0.9);
}

TEST(SegmentedIndexTest, AloneEqualsInABatch) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndex index(Options(folder.path(), 2000), kPosition);
  index.Filled();
  std::vector<IndexChange> changes;
  changes.reserve(3000);
  for (int i = 0; i < 3000; ++i) changes.push_back(model.Put(StrCat(i), 1, 40));
  index.Apply(std::move(changes), kPosition);
  EXPECT_GT(Settle(index), 0);
  const auto vectors = ClusteredVectors(model, 100, 40);
  std::vector<IndexQuery> queries;
  queries.reserve(vectors.size());
  for (const auto& vector : vectors) queries.push_back({vector, {}});
  for (const std::optional<float> effort : {std::optional<float>(), std::optional<float>(0.3)}) {
    const auto together = index.Search(queries, {.k = 5, .effort = effort}, CallContext());
    ASSERT_TRUE(together.ok());
    for (size_t q = 0; q < queries.size(); ++q) {
      const auto alone = index.Search(std::span(&queries[q], 1), {.k = 5, .effort = effort}, CallContext());
      ASSERT_TRUE(alone.ok());
      EXPECT_EQ(Flatten(alone->hits[0]), Flatten(together->hits[q]));
    }
  }
}

// ---------------------------------------------------------------- effort and filters

class RecallTest : public testing::TestWithParam<SegmentKind> {};

TEST_P(RecallTest, GrowsWithEffortAndFiltersLeaveKResults) {
  constexpr int kDocuments = 20'000, kWide = 48;
  constexpr uint32_t kClusters = 300;
  const TemporaryFolder folder;
  IndexModel model(kWide, kSeed);
  SegmentedIndexOptions options = Options(folder.path(), kDocuments, kWide);
  options.settings.kind = options.identity.kind = GetParam();
  SegmentedIndex index(options, kPosition);
  index.Filled();
  std::vector<IndexChange> changes;
  changes.reserve(kDocuments);
  for (int i = 0; i < kDocuments; ++i) changes.push_back(model.Put(StrCat("doc", i), 1, kClusters));
  index.Apply(std::move(changes), kPosition);
  EXPECT_EQ(Settle(index), 2) << "sealed, and recall measured";
  const IndexStats stats = index.Stats();
  EXPECT_EQ(stats.state, pb::INDEX_STATE_READY);
  EXPECT_EQ(stats.segments[0].rows, uint64_t{kDocuments});
  ASSERT_TRUE(stats.measured_recall.has_value());

  const auto vectors = ClusteredVectors(model, 40, kClusters);
  double before = 0;
  for (const float effort : {0.0f, 0.25f, 0.5f, 0.75f, 1.0f}) {
    const double recall = Recall(index, vectors, {.k = 10, .effort = effort});
    std::printf("%s effort %.2f recall %.3f (measured by itself at 0.5: %.3f)\n", stats.segments[0].kind.c_str(),
                effort, recall, *stats.measured_recall);
    EXPECT_GE(recall, before - 0.02);
    before = recall;
    EXPECT_GE(recall, effort == 1 ? 0.99 : effort >= 0.5 ? 0.9 : 0.0);
  }
  for (const int bound : {1, 3, 10, 30, 100, 300, 1000}) {  // thousandths
    const CompiledFilter filter = GroupBelow(bound);
    for (const uint32_t k : {1, 10, 100}) {
      SCOPED_TRACE(StrCat("selectivity ", bound, "/1000, k ", k));
      EXPECT_GE(Recall(index, vectors, {.k = k, .effort = 0.5, .filter = &filter}), 0.9);
      const std::vector<IndexQuery> query = {{vectors[0], {}}};
      const auto hits = index.Search(query, {.k = k, .effort = 0.5, .filter = &filter}, CallContext());
      ASSERT_TRUE(hits.ok());
      EXPECT_EQ(hits->hits[0].size(),
                std::min<size_t>(k, index.MatchingDocuments(filter, UINT64_MAX, SIZE_MAX, {})->size()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, RecallTest, testing::Values(SegmentKind::kPq4, SegmentKind::kSq8, SegmentKind::kExact));

TEST(SegmentedIndexTest, KIsFilledWhenNearlyAllIsGoneFilteredOrLeftOut) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndex index(Options(folder.path(), 4000), kPosition);
  index.Filled();
  std::vector<IndexChange> changes;
  changes.reserve(4000);
  for (int i = 0; i < 4000; ++i) changes.push_back(model.Put(StrCat("doc", i), 1, 20));
  index.Apply(std::move(changes), kPosition);
  EXPECT_GT(Settle(index), 0);
  pb::Filter filter;
  for (const int wanted : {3, 900, 3999}) filter.mutable_in()->add_values()->set_string_value(StrCat("doc", wanted));
  filter.mutable_in()->mutable_field()->set_builtin(pb::BUILTIN_FIELD_ID);
  const auto compiled = CompiledFilter::Compile(filter, "filter");
  ASSERT_TRUE(compiled.ok());
  const std::vector<float> vector = model.ClusteredVector(20);
  std::vector<IndexQuery> queries = {{vector, {}}};
  auto hits = index.Search(queries, {.k = 3, .effort = 0, .filter = &*compiled}, CallContext());
  ASSERT_TRUE(hits.ok());
  EXPECT_EQ(hits->hits[0].size(), 3u);
  EXPECT_THAT(*index.MatchingDocuments(*compiled, UINT64_MAX, SIZE_MAX, {}),
              testing::UnorderedElementsAre("doc3", "doc900", "doc3999"));

  index.Apply({model.PutMetadata("doc3"), model.Remove("doc900"), model.Put("doc3999", 3, 20)}, kPosition);
  EXPECT_THAT(*index.MatchingDocuments(*compiled, UINT64_MAX, SIZE_MAX, {}),
              testing::UnorderedElementsAre("doc3", "doc3999"));

  for (int i = 0; i < 3990; ++i) queries[0].excluded_ids.insert(StrCat("doc", i));
  hits = index.Search(queries, {.k = 10, .effort = 0}, CallContext());
  ASSERT_TRUE(hits.ok());
  EXPECT_EQ(Flatten(hits->hits[0]), model.BruteForce(queries[0], {.k = 10}));

  queries[0].excluded_ids.clear();
  changes.clear();
  for (int i = 0; i < 3990; ++i) {
    if (i != 900) changes.push_back(model.Remove(StrCat("doc", i)));
  }
  index.Apply(std::move(changes), kPosition);
  hits = index.Search(queries, {.k = 20, .effort = 0}, CallContext());
  ASSERT_TRUE(hits.ok());
  EXPECT_EQ(Flatten(hits->hits[0]), model.BruteForce(queries[0], {.k = 20}));
  EXPECT_EQ(hits->hits[0].size(), 12u);  // doc3999 has three chunks
}

// A writer that outruns sealing is told so, and what waits is counted as the memory that it takes.
TEST(SegmentedIndexTest, WritersWaitForSegmentsToBeSealed) {
  constexpr uint64_t kSealRows = 200;
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndex index(Options(folder.path(), kSealRows), kPosition);
  index.Filled();
  while (index.Stats().segments.size() < 4) index.Apply(model.Churn(1, 1 << 20), kPosition);  // three are full
  for (const SegmentSize& segment : index.Stats().segments) {
    EXPECT_GE(segment.memory_bytes,
              (segment.rows + kSmallBlock - 1) / kSmallBlock * kSmallBlock * kDimension * kHalfBytes);
  }
  EXPECT_TRUE(index.WaitForMaintenance(3, absl::ZeroDuration()).ok());
  EXPECT_EQ(index.WaitForMaintenance(2, absl::Milliseconds(20)).code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(*index.Maintain());
  EXPECT_TRUE(index.WaitForMaintenance(2, absl::ZeroDuration()).ok());
}

TEST(SegmentedIndexTest, WhoSealsWaitsForWhatWasThereAlone) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndex index(Options(folder.path(), 1000), kPosition);
  index.Filled();
  index.Apply(model.Churn(10, 1 << 20), kPosition);
  const uint64_t step = index.SealGrowing();
  EXPECT_EQ(index.WaitForSealing(step, absl::ZeroDuration()).code(), absl::StatusCode::kDeadlineExceeded);
  index.Apply(model.Churn(10, 1 << 20), kPosition);
  const uint64_t later = index.SealGrowing();
  ASSERT_TRUE(*index.Maintain());
  EXPECT_TRUE(index.WaitForSealing(step, absl::ZeroDuration()).ok());
  EXPECT_EQ(index.WaitForSealing(later, absl::ZeroDuration()).code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(*index.Maintain());
  EXPECT_TRUE(index.WaitForSealing(later, absl::ZeroDuration()).ok());
}

// As when a corpus is sent again with newer versions, which no index knows.
TEST(SegmentedIndexTest, WhatDidNotChangeStaysInItsSegment) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndex index(Options(folder.path(), 1000), kPosition);
  index.Filled();
  index.Apply(model.Churn(20, 1 << 20), kPosition);
  index.SealGrowing();
  EXPECT_GT(Settle(index), 0);
  std::vector<IndexChange> again;
  for (const auto& [id, change] : model.documents()) {
    again.push_back({id, std::make_shared<IndexedDocument>(*change.document), {}});
  }
  index.Apply(std::move(again), kPosition);
  EXPECT_EQ(index.Stats().segments[0].deleted, 0u);
  EXPECT_EQ(index.Stats().segments[1].rows, 0u) << "what grows";
  ExpectEqualsBruteForce(model, index);
  index.Apply({model.PutMetadata(model.documents().begin()->first)}, kPosition);
  EXPECT_GT(index.Stats().segments[0].deleted, 0u);
}

TEST(SegmentedIndexTest, MemoryCountsWhatIsKnownOfDocuments) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndex index(Options(folder.path(), kNeverSealed), kPosition);
  index.Filled();
  index.Apply({model.Put("a", 1)}, kPosition);
  const uint64_t small = index.Stats().document_bytes;
  auto document = std::make_shared<IndexedDocument>(*model.Put("b", 1).document);
  document->title = std::string(10'000, 't');
  document->metadata = {{"key", {std::string(20'000, 'v')}}};
  index.Apply({{"b", document, ToHalf(model.RandomVector())}}, kPosition);
  EXPECT_GT(index.Stats().document_bytes, small + 30'000);
  index.Apply({model.Remove("b")}, kPosition);
  EXPECT_LT(index.Stats().document_bytes, small + 30'000);
}

// ---------------------------------------------------------------- damage

class DamageTest : public testing::Test {
 protected:
  static constexpr int kSmall = 4;

  DamageTest() : model_(kSmall, kSeed), options_(Options(folder_.path(), 600, kSmall)) {
    SegmentedIndex index(options_, kPosition);
    index.Filled();
    index.Apply(model_.Churn(300, 400), kPosition);
    EXPECT_GT(Settle(index), 0);
  }

  // Everything in the folder, as it is whole.
  std::map<std::string, std::string> Contents() const {
    std::map<std::string, std::string> contents;
    for (const auto& entry : std::filesystem::directory_iterator(options_.folder)) {
      contents[entry.path().string()] = *ReadFile(entry.path().string());
    }
    return contents;
  }

  static void Write(const std::string& path, std::string_view bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  static void PutBack(const std::map<std::string, std::string>& contents) {
    for (const auto& [path, bytes] : contents) Write(path, bytes);
  }

  // Opens what is there, which must not be taken for whole, and looks whether it answers all the same.
  void ExpectMadeAgain() {
    SegmentedIndex index(options_, kPosition);
    EXPECT_FALSE(index.has_sealed_segments());
    model_.Fill(index);
    EXPECT_EQ(index.Stats().state, pb::INDEX_STATE_REBUILDING);
    const std::vector<float> vector = model_.RandomVector();
    const std::vector<IndexQuery> queries = {{vector, {}}};
    const auto hits = index.Search(queries, {.k = 10, .effort = 0.5}, CallContext());
    ASSERT_TRUE(hits.ok());
    EXPECT_EQ(Flatten(hits->hits[0]), model_.BruteForce(queries[0], {.k = 10}));
  }

  const TemporaryFolder folder_;
  IndexModel model_;
  const SegmentedIndexOptions options_;
};

TEST_F(DamageTest, AnyFlippedByteCutTailOrMissingFileIsNoticedAndMadeAgain) {
  spdlog::set_level(spdlog::level::err);
  const auto whole = Contents();
  ASSERT_EQ(whole.size(), 4u) << "manifest, vectors, documents, lists";
  for (const auto& [path, bytes] : whole) {
    for (size_t at = 0; at < bytes.size(); at += 1 + bytes.size() / 24) {
      SCOPED_TRACE(StrCat(path, " byte ", at));
      std::string flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
      Write(path, flipped);
      ExpectMadeAgain();
      PutBack(whole);
    }
    for (const size_t left : {size_t{0}, bytes.size() / 2, bytes.size() - 1}) {
      SCOPED_TRACE(StrCat(path, " cut to ", left));
      Write(path, bytes.substr(0, left));
      ExpectMadeAgain();
      PutBack(whole);
    }
    SCOPED_TRACE(path + " missing");
    std::filesystem::remove(path);
    ExpectMadeAgain();
    PutBack(whole);
  }
  EXPECT_TRUE(SegmentedIndex(options_, kPosition).has_sealed_segments()) << "whole again";
  std::filesystem::remove(whole.begin()->first);
  SegmentedIndex index(options_, kPosition);
  model_.Fill(index);
  EXPECT_GT(Settle(index), 0);
  EXPECT_EQ(index.Stats().state, pb::INDEX_STATE_READY);
  EXPECT_EQ(Contents().size(), whole.size());
  spdlog::set_level(spdlog::level::info);
}

TEST_F(DamageTest, AnotherStoresNewerOrOtherwiseMadeSegmentsAreNotTaken) {
  spdlog::set_level(spdlog::level::err);
  const auto whole = Contents();
  SegmentedIndexOptions other = options_;
  other.identity.store_id = std::string(16, 't');
  EXPECT_FALSE(SegmentedIndex(other, kPosition).has_sealed_segments());
  PutBack(whole);
  EXPECT_FALSE(SegmentedIndex(options_, MakePosition(1, 3)).has_sealed_segments());
  PutBack(whole);
  other = options_;
  other.identity.kind = SegmentKind::kSq8;
  EXPECT_FALSE(SegmentedIndex(other, kPosition).has_sealed_segments());
  PutBack(whole);
  other = options_;
  ++other.settings.seal_rows;
  EXPECT_FALSE(SegmentedIndex(other, kPosition).has_sealed_segments());
  PutBack(whole);
  EXPECT_TRUE(SegmentedIndex(options_, kPosition).has_sealed_segments());
  spdlog::set_level(spdlog::level::info);
}

TEST_F(DamageTest, RemainsOfAProcessThatDiedAreSwept) {
  const auto whole = Contents();
  for (const char* name : {"/99.vectors", "/99.lists.tmp", "/manifest.tmp"}) {
    Write(options_.folder + name, "half");
  }
  EXPECT_TRUE(SegmentedIndex(options_, kPosition).has_sealed_segments());
  EXPECT_EQ(Contents(), whole);
}

TEST(SegmentedIndexTest, WhatCannotBeWrittenStaysExact) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndexOptions options = Options(folder.path(), 300);
  options.folder = "/proc/no-such-folder";
  SegmentedIndex index(options, kPosition);
  index.Filled();
  for (int i = 0; i < 10; ++i) index.Apply(model.Churn(40, 400), kPosition);
  EXPECT_FALSE(index.Maintain().ok());
  for (int i = 0; i < 10; ++i) index.Apply(model.Churn(40, 400), kPosition);
  ExpectEqualsBruteForce(model, index);
}

// ---------------------------------------------------------------- many threads

// Each step replaces all documents' vectors at once: a search must find all of one step, though segments are sealed and
// merged all the while.
TEST(SegmentedIndexTest, AStepIsSeenWholeOrNotAtAll) {
  constexpr int kDocuments = 40, kSteps = 400;
  const TemporaryFolder folder;
  SegmentedIndexOptions options = Options(folder.path(), 60, 1);
  options.background = true;
  SegmentedIndex index(options, kPosition);
  index.Filled();
  const auto step_changes = [&](int step) {
    std::vector<IndexChange> changes;
    for (int i = 0; i < kDocuments; ++i) {
      auto document = std::make_shared<IndexedDocument>();
      document->id = StrCat("doc", i);
      document->chunk_count = 1 + step % 3;
      document->first_chunk_id = MakeChunkId(kDocuments * 3 * step + 3 * i + 1, 0);
      const std::vector<float> vectors(document->chunk_count, static_cast<float>(step));
      changes.push_back({document->id, document, ToHalf(vectors)});
    }
    return changes;
  };
  index.Apply(step_changes(0), kPosition);
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int step = 1; step < kSteps; ++step) index.Apply(step_changes(step), kPosition);
    done = true;
  });
  const std::vector<float> zero = {0};
  const std::vector<IndexQuery> queries = {{zero, {}}};
  while (!done) {
    const auto hits = index.Search(queries, {.k = 1000}, CallContext());
    ASSERT_TRUE(hits.ok());
    ASSERT_EQ(hits->hits[0].size() % kDocuments, 0u);
    EXPECT_EQ(hits->hits[0].front().distance, hits->hits[0].back().distance);
  }
  writer.join();
}

// Documents are moved to new segments one at a time, and others come and go in between.
TEST(SegmentedIndexTest, WhileDocumentsAreMovedNoneIsFoundTwiceOrLost) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndexOptions options = Options(folder.path(), 100);
  options.background = true;
  options.moved_at_once = 1;
  SegmentedIndex index(options, kPosition);
  index.Filled();
  for (int round = 0; index.Stats().generation < 30; ++round) {
    SCOPED_TRACE(StrCat("seed ", kSeed, " round ", round));
    index.Apply(model.Churn(2, 100), kPosition);
    const std::vector<float> vector = model.RandomVector();
    const std::vector<IndexQuery> queries = {{vector, {}}};
    const auto hits = index.Search(queries, {.k = 1000}, CallContext());
    ASSERT_TRUE(hits.ok());
    ASSERT_EQ(Flatten(hits->hits[0]), model.BruteForce(queries[0], {.k = 1000}));
    ASSERT_TRUE(index.WaitForMaintenance(3).ok());
  }
  ExpectEqualsBruteForce(model, index);
}

TEST(SegmentedIndexTest, SearchesRunBesideChangesAndMaintenance) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndexOptions options = Options(folder.path(), 500);
  options.background = true;
  SegmentedIndex index(options, kPosition);
  index.Filled();
  const auto vectors = ClusteredVectors(model, 8, 20);
  std::vector<IndexQuery> queries;
  queries.reserve(vectors.size());
  for (const auto& vector : vectors) queries.push_back({vector, {}});
  std::atomic<bool> done = false;
  std::atomic<uint64_t> searches = 0;
  std::vector<std::thread> readers;
  readers.reserve(3);
  for (int reader = 0; reader < 3; ++reader) {
    readers.emplace_back([&, reader] {
      const CompiledFilter filter = GroupBelow(300);
      while (!done) {
        IndexSearchOptions search{.k = 5, .effort = 0.5};
        if (reader == 1) search.filter = &filter;
        if (reader == 2) search.effort.reset();
        EXPECT_TRUE(index.Search(queries, search, CallContext()).ok());
        ++searches;
        index.Stats();
      }
    });
  }
  for (int step = 0; step < 150; ++step) index.Apply(model.Churn(20, 800, 20), kPosition);
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(searches, 0u);
  const auto found = index.Search(queries, {.k = 5}, CallContext());
  ASSERT_TRUE(found.ok());
  for (size_t q = 0; q < queries.size(); ++q) {
    EXPECT_EQ(Flatten(found->hits[q]).size(), model.BruteForce(queries[q], {.k = 5}).size());
  }
}

TEST(SegmentedIndexTest, ACallerWhoLeftIsDropped) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndex index(Options(folder.path(), 300), kPosition);
  index.Filled();
  index.Apply(model.Churn(100, 150), kPosition);
  Settle(index);
  const std::vector<float> vector = model.RandomVector();
  const std::vector<IndexQuery> queries = {{vector, {}}};
  CallContext context;
  context.cancelled = [] { return true; };
  for (const std::optional<float> effort : {std::optional<float>(), std::optional<float>(0.5)}) {
    EXPECT_EQ(index.Search(queries, {.k = 5, .effort = effort}, context).status().code(), absl::StatusCode::kCancelled);
  }
}

}  // namespace
}  // namespace retro
