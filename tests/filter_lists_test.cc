// The lists against their oracle: every document looked at.
#include "retriever_service/index/filter_lists.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/base/strings.h"
#include "retriever_service/index/segmented_index.h"
#include "retriever_service/store/layout.h"
#include "tests/index_model.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr uint32_t kSeed = 20261126;
constexpr int kDimension = 8;
const shardpb::Position kPosition = MakePosition(1, 1 << 20);

std::vector<uint32_t> Numbers(const DocumentSet& set) {
  std::vector<uint32_t> numbers;
  set.ForEach([&](uint32_t document) {
    numbers.push_back(document);
    return true;
  });
  EXPECT_EQ(numbers.size(), set.count());
  return numbers;
}

TEST(DocumentSetTest, JoinsAndComplements) {
  for (const uint32_t documents : {0, 1, 63, 64, 65, 200}) {
    DocumentSet even(documents), third(documents), all(documents);
    for (uint32_t i = 0; i < documents; i += 2) even.Add(i);
    for (uint32_t i = 0; i < documents; i += 3) third.Add(i);
    all.Complement();
    EXPECT_EQ(all.count(), documents);
    DocumentSet either = even, both = even, neither = even;
    either.Unite(third);
    both.Intersect(third);
    neither.Unite(third);
    neither.Complement();
    for (uint32_t i = 0; i < documents; ++i) {
      EXPECT_EQ(either.Contains(i), i % 2 == 0 || i % 3 == 0);
      EXPECT_EQ(both.Contains(i), i % 6 == 0);
      EXPECT_EQ(neither.Contains(i), i % 2 != 0 && i % 3 != 0);
    }
    EXPECT_EQ(Numbers(either).size() + Numbers(neither).size(), documents);
  }
}

TEST(FilterListsTest, GiveJustTheDocumentsForWhichAFilterIsTrue) {
  IndexModel model(kDimension, kSeed);
  for (const int count : {0, 1, 40, 700}) {
    std::vector<std::shared_ptr<const IndexedDocument>> documents;
    std::vector<const IndexedDocument*> pointers;
    for (int i = 0; i < count; ++i) {
      documents.push_back(model.Put(StrCat("doc", i), 1).document);
      pointers.push_back(i % 50 == 7 ? nullptr : documents.back().get());
    }
    const FilterLists lists(pointers);
    const IndexedDocument nothing;
    uint64_t matches = 0;
    for (int round = 0; round < 2000; ++round) {
      const CompiledFilter filter = RandomFilter(model.random());
      const DocumentSet set = lists.Matching(filter);
      for (int i = 0; i < count; ++i) {
        if (pointers[i] == nullptr) continue;
        ASSERT_EQ(set.Contains(i), filter.Matches(*pointers[i])) << "seed " << kSeed << " round " << round << " " << i;
        matches += set.Contains(i) ? 1 : 0;
      }
    }
    EXPECT_GE(matches, uint64_t{2000} * count / 10) << "most filters match something";
  }
}

TEST(FilterListsTest, ACallerWhoLeftIsDropped) {
  const FilterLists lists({});
  CallContext context;
  int looks = 0;
  context.cancelled = [&] { return ++looks > 10; };  // in the midst of it
  pb::Filter filter;
  for (int i = 0; i < 100; ++i) {
    filter.mutable_all_of()->add_filters()->mutable_exists()->mutable_field()->set_metadata_key(StrCat("key", i));
  }
  const auto compiled = CompiledFilter::Compile(filter, "filter");
  ASSERT_TRUE(compiled.ok());
  EXPECT_EQ(lists.Matching(*compiled, context).status().code(), absl::StatusCode::kCancelled);
}

TEST(FilterListsTest, NumbersNearTheLimitsAreInOrder) {
  std::vector<IndexedDocument> documents;
  const double huge = std::numeric_limits<double>::max();
  for (const Value& value :
       std::vector<Value>{std::numeric_limits<int64_t>::min(), -huge, -1.5, int64_t{-1}, -0.0, 0.0, int64_t{0},
                          std::numeric_limits<double>::denorm_min(), huge, std::numeric_limits<int64_t>::max(),
                          9223372036854775808.0, std::numeric_limits<double>::quiet_NaN()}) {
    documents.emplace_back().metadata = {{"size", {value}}};
  }
  std::vector<const IndexedDocument*> pointers;
  for (const IndexedDocument& document : documents) pointers.push_back(&document);
  const FilterLists lists(pointers);
  for (const IndexedDocument& bound : documents) {
    const Value& value = bound.metadata[0].second[0];
    pb::Filter filter;
    pb::RangeFilter& range = *filter.mutable_range();
    range.mutable_field()->set_metadata_key("size");
    if (const auto* whole = std::get_if<int64_t>(&value)) range.mutable_at_least()->set_int_value(*whole);
    if (const auto* number = std::get_if<double>(&value)) range.mutable_at_least()->set_number_value(*number);
    const auto compiled = CompiledFilter::Compile(filter, "filter");
    if (!compiled.ok()) continue;  // NaN
    const DocumentSet set = lists.Matching(*compiled);
    for (uint32_t i = 0; i < documents.size(); ++i) EXPECT_EQ(set.Contains(i), compiled->Matches(documents[i])) << i;
  }
}

SegmentedIndexOptions OptionsIn(const TemporaryFolder& folder) {
  SegmentedIndexOptions options;
  options.settings.seal_rows = 300;
  options.folder = folder.path() + "/index";
  options.identity = {std::string(16, 's'), 7, kDimension, options.settings.kind};
  options.block_rows = 64;
  options.background = false;
  return options;
}

TEST(FilterListsTest, AnIndexDropsACallerWhoLeft) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  SegmentedIndex index(OptionsIn(folder), kPosition);
  index.Filled();
  index.Apply({model.Put("a", 1)}, kPosition);
  index.SealGrowing();
  ASSERT_TRUE(*index.Maintain());
  pb::Filter filter;
  filter.mutable_exists()->mutable_field()->set_builtin(pb::BUILTIN_FIELD_ID);
  const auto compiled = CompiledFilter::Compile(filter, "filter");
  ASSERT_TRUE(compiled.ok());
  EXPECT_EQ(*index.CountMatching(*compiled, CallContext()), 1u);
  for (const int goes_at : {0, 1}) {  // before what grows, before what is sealed
    int looks = 0;
    CallContext context;
    context.cancelled = [&] { return looks++ >= goes_at; };
    EXPECT_EQ(index.CountMatching(*compiled, context).status().code(), absl::StatusCode::kCancelled);
    looks = 0;
    EXPECT_EQ(index.NewestMatching(*compiled, context).status().code(), absl::StatusCode::kCancelled);
    looks = 0;
    EXPECT_EQ(index.MatchingDocuments(*compiled, UINT64_MAX, SIZE_MAX, context).status().code(),
              absl::StatusCode::kCancelled);
  }
}

// Random filters between random changes, seals, merges and restarts.
TEST(FilterListsTest, AnIndexAnswersAsIfEveryDocumentWereLookedAt) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  const SegmentedIndexOptions options = OptionsIn(folder);
  auto index = std::make_unique<SegmentedIndex>(options, kPosition);
  index->Filled();
  int maintained = 0;
  for (int round = 0; round < 80; ++round) {
    SCOPED_TRACE(StrCat("seed ", kSeed, " round ", round));
    index->Apply(model.Churn(60, 600), kPosition);
    if (model.random()() % 2 == 0) maintained += *index->Maintain() ? 1 : 0;
    if (model.random()() % 16 == 0) {
      index = std::make_unique<SegmentedIndex>(options, kPosition);
      model.Fill(*index);
    }
    for (int i = 0; i < 20; ++i) {
      const CompiledFilter filter = RandomFilter(model.random());
      ASSERT_THAT(*index->MatchingDocuments(filter, UINT64_MAX, SIZE_MAX, {}),
                  testing::UnorderedElementsAreArray(model.Matching(filter)));
      const std::vector<float> vector = model.RandomVector();
      const std::vector<IndexQuery> queries = {{vector, {}}};
      const IndexSearchOptions search{.k = 10, .filter = &filter};
      const auto exact = index->Search(queries, search, CallContext());
      ASSERT_TRUE(exact.ok());
      const Hits wanted = model.BruteForce(queries[0], search);
      ASSERT_EQ(Flatten(exact->hits[0]), wanted);
      const auto found = index->Search(queries, {.k = 10, .effort = 0.2, .filter = &filter}, CallContext());
      ASSERT_TRUE(found.ok());
      ASSERT_EQ(found->hits[0].size(), wanted.size()) << "as many as there are, whatever the effort";
    }
  }
  EXPECT_GT(maintained, 20);
}

}  // namespace
}  // namespace retro
