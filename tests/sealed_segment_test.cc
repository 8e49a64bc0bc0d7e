#include "retriever_service/index/sealed_segment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/index/index_folder.h"
#include "retriever_service/store/layout.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr int kDimension = 16;
constexpr uint32_t kSeed = 20270114;

class SealedSegmentTest : public testing::Test {
 protected:
  // Vectors that lie about so far from 0, in every coordinate.
  void Add(const std::string& id, uint32_t chunks, float centre) {
    auto document = std::make_shared<IndexedDocument>();
    document->id = id;
    document->first_chunk_id = MakeChunkId(next_chunk_, 0);
    document->chunk_count = chunks;
    next_chunk_ += chunks;
    std::normal_distribution<float> normal(centre);
    std::vector<float> vectors(size_t{chunks} * kDimension);
    for (float& x : vectors) x = normal(random_);
    vectors_.push_back(ToHalf(vectors));
    documents_.push_back(std::move(document));
  }

  std::shared_ptr<SealedSegment> Seal(SegmentKind kind) {
    std::vector<SegmentContent> content;
    for (size_t i = 0; i < documents_.size(); ++i) content.push_back({documents_[i], vectors_[i]});
    IndexFolder index(folder_.path(), {std::string(16, 's'), 7, kDimension, kind}, 1 << 20);
    auto made = index.Write(content, {}, 1, stop_, building_bytes_);
    EXPECT_TRUE(made.ok()) << made.status();
    for (uint32_t at = 0; at < documents_.size(); ++at) {
      (*made)->Name(at, documents_[at]);
      (*made)->Attach(at);
    }
    (*made)->MakeFilterLists();
    return *made;
  }

  absl::Status Opened(const shardpb::IndexSegment& info) const {
    return SealedSegment::Open(folder_.path(), info, kDimension).status();
  }

  const TemporaryFolder folder_;
  std::mt19937 random_{kSeed};
  uint64_t next_chunk_ = 1;
  std::vector<std::shared_ptr<const IndexedDocument>> documents_;
  std::vector<std::string> vectors_;
  const std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> building_bytes_ = 0;
};

// Numbers of the manifest whose bytes, multiplied, would be those of the files again.
TEST_F(SealedSegmentTest, CountsThatDoNotFitTheFilesAreRefused) {
  Add("a", 3, 0);
  Add("b", 2, 0);
  const shardpb::IndexSegment whole = Seal(SegmentKind::kExact)->info();
  ASSERT_TRUE(Opened(whole).ok()) << Opened(whole);
  constexpr uint64_t kRowBytes = kDimension * kHalfBytes;
  for (const uint64_t more : {uint64_t{1}, ~uint64_t{0} / sizeof(SealedDocument) + 1, ~uint64_t{0} / kRowBytes + 1}) {
    shardpb::IndexSegment info = whole;
    info.set_documents(whole.documents() + more);
    EXPECT_EQ(Opened(info).code(), absl::StatusCode::kDataLoss) << more << " documents more";
    info = whole;
    info.set_rows(whole.rows() + more);
    EXPECT_EQ(Opened(info).code(), absl::StatusCode::kDataLoss) << more << " rows more";
  }
}

// A file of which the system reads nothing without an I/O error, as of a disk with a bad sector.
TEST_F(SealedSegmentTest, AFileThatCannotBeReadIsDamaged) {
  Add("a", 600, 0);
  const auto segment = Seal(SegmentKind::kPq4);
  const SegmentPaths paths = PathsOfSegment(folder_.path(), segment->info().number());
  for (const std::string& path : {paths.vectors, paths.documents, paths.lists}) {
    ASSERT_TRUE(Opened(segment->info()).ok()) << Opened(segment->info());
    std::filesystem::rename(path, path + ".whole");
    std::filesystem::create_symlink("/proc/self/mem", path);
    const absl::Status status = Opened(segment->info());
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(MessageOf(status), testing::AllOf(testing::HasSubstr(path), testing::HasSubstr("error")));
    std::filesystem::rename(path + ".whole", path);
  }
}

// Every candidate of the first rounds is of the document that is left out. To compare everything would take the
// caller's patience more than 20 looks.
TEST_F(SealedSegmentTest, LooksWiderBeforeItComparesEverything) {
  constexpr uint32_t kOthers = 20'000;
  Add("own", 3000, 20);
  for (uint32_t i = 0; i < kOthers; ++i) Add(StrCat("other", i), 1, 0);
  const auto segment = Seal(SegmentKind::kPq4);
  const std::vector<float> vector(kDimension, 20);
  const std::vector<IndexQuery> queries = {{vector, {std::string("own")}}};
  int looks = 0;
  CallContext context;
  context.cancelled = [&looks] { return ++looks < 0; };
  const IndexSearchOptions options{.k = 2, .effort = 0.5};
  const SegmentSearch search = {queries, options, kNewestStep, segment->info().rows(), context};
  std::vector<TopK> best(1, search.EmptyBest());
  ASSERT_TRUE(segment->Search(search, best).ok());
  ASSERT_EQ(best[0].best().size(), 2u);
  for (const Candidate& candidate : best[0].best()) EXPECT_NE((*candidate.document)->id, "own");
  EXPECT_GT(looks, 2) << "one a round";
  EXPECT_LT(looks, 10);
}

// The lists would be gone through wider and wider, and everything be compared at last.
TEST_F(SealedSegmentTest, FewDocumentsThatMayNotGiveEnoughAreComparedAtOnce) {
  for (const char* id : {"a", "b", "c"}) Add(id, 5000, 0);
  const auto segment = Seal(SegmentKind::kPq4);
  const std::vector<float> vector(kDimension, 0);
  const std::vector<IndexQuery> queries = {{vector, {}}};
  const auto looks_with = [&](std::optional<float> effort) {
    int looks = 0;
    CallContext context;
    context.cancelled = [&looks] { return ++looks < 0; };
    const IndexSearchOptions options{.k = 10, .effort = effort, .chunks_per_document_max = 1};
    const SegmentSearch search = {queries, options, kNewestStep, segment->info().rows(), context};
    std::vector<TopK> best(1, search.EmptyBest());
    EXPECT_TRUE(segment->Search(search, best).ok());
    EXPECT_EQ(best[0].best().size(), 3u);
    return looks;
  };
  EXPECT_EQ(looks_with(0.5F), looks_with(std::nullopt));
}

TEST_F(SealedSegmentTest, ACallerIsAskedForWithinALargeDocument) {
  Add("large", 20'000, 0);
  const auto segment = Seal(SegmentKind::kExact);
  const std::vector<float> vector(kDimension, 0);
  const std::vector<IndexQuery> queries(8, IndexQuery{vector, {}});
  int looks = 0;
  CallContext context;
  context.cancelled = [&looks] { return ++looks > 5; };
  const IndexSearchOptions options{.k = 2};
  const SegmentSearch search = {queries, options, kNewestStep, segment->info().rows(), context};
  std::vector<TopK> best(queries.size(), search.EmptyBest());
  EXPECT_EQ(segment->Search(search, best).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(looks, 6);
}

}  // namespace
}  // namespace retro
