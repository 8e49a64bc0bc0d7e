#include "retriever_service/index/exact_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "common/base/strings.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr int kDimension = 24;
constexpr uint32_t kSmallBlock = 64;
constexpr uint32_t kSeed = 20240607;

using Hits = std::vector<std::pair<float, uint64_t>>;

// An index beside a plain list of what it should hold.
class Model {
 public:
  explicit Model(uint32_t seed) : random_(seed) {}

  std::vector<float> RandomVector() {
    std::uniform_int_distribution<int> coordinate(-3, 3);  // few values: many equal distances
    std::vector<float> vector(kDimension);
    for (float& x : vector) x = static_cast<float>(coordinate(random_));
    return vector;
  }

  IndexChange Put(const std::string& id, uint32_t chunks) {
    auto document = std::make_shared<IndexedDocument>();
    document->id = id;
    document->chunk_count = chunks;
    document->first_chunk_id = MakeChunkId(next_chunk_, SlotOfDocument(id));
    document->metadata = {{"group", {static_cast<int64_t>(random_() % 100)}}};
    next_chunk_ += chunks;
    IndexChange change{id, document, {}};
    for (uint32_t i = 0; i < chunks; ++i) {
      const std::vector<float> vector = RandomVector();
      change.vectors.insert(change.vectors.end(), vector.begin(), vector.end());
    }
    documents_[id] = change;
    return change;
  }

  // Another document with the same vectors.
  IndexChange PutMetadata(const std::string& id) {
    auto document = std::make_shared<IndexedDocument>(*documents_.at(id).document);
    document->metadata = {{"group", {static_cast<int64_t>(random_() % 100)}}};
    documents_[id].document = document;
    return {id, document, {}};
  }

  IndexChange Remove(const std::string& id) {
    documents_.erase(id);
    return {id, nullptr, {}};
  }

  Hits BruteForce(const IndexQuery& query, const IndexSearchOptions& options) const {
    struct Row {
      float distance;
      uint64_t chunk_id;
      const IndexedDocument* document;
    };
    std::vector<Row> rows;
    for (const auto& [id, change] : documents_) {
      if (query.excluded_ids.contains(id)) continue;
      if (options.filter != nullptr && !options.filter->Matches(*change.document)) continue;
      for (uint32_t i = 0; i < change.document->chunk_count; ++i) {
        float distance = 0;
        for (int j = 0; j < kDimension; ++j) {
          const float difference = query.vector[j] - change.vectors[i * kDimension + j];
          distance += difference * difference;  // whole numbers: exact in any order
        }
        if (options.max_distance.has_value() && distance > *options.max_distance) continue;
        rows.push_back({distance, ChunkIdAt(change.document->first_chunk_id, i), change.document.get()});
      }
    }
    std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
      return std::tie(a.distance, a.chunk_id) < std::tie(b.distance, b.chunk_id);
    });
    Hits hits;
    std::map<const IndexedDocument*, uint32_t> taken;
    for (const Row& row : rows) {
      if (hits.size() == options.k) break;
      if (options.chunks_per_document_max > 0 && taken[row.document]++ >= options.chunks_per_document_max) continue;
      hits.emplace_back(row.distance, row.chunk_id);
    }
    return hits;
  }

  std::mt19937& random() { return random_; }
  const std::map<std::string, IndexChange>& documents() const { return documents_; }

 private:
  std::mt19937 random_;
  uint64_t next_chunk_ = 1;
  std::map<std::string, IndexChange> documents_;
};

Hits Flatten(const std::vector<IndexHit>& hits) {
  Hits flat;
  for (const IndexHit& hit : hits) flat.emplace_back(hit.distance, hit.chunk_id);
  return flat;
}

CompiledFilter GroupBelow(int bound) {
  pb::Filter filter;
  filter.mutable_range()->mutable_field()->set_metadata_key("group");
  filter.mutable_range()->mutable_less_than()->set_int_value(bound);
  return *CompiledFilter::Compile(filter, "filter");
}

// Random changes in random steps, of all kinds.
void Churn(Model& model, ExactIndex& index, int steps) {
  for (int step = 0; step < steps; ++step) {
    std::vector<IndexChange> changes;
    const int count = 1 + model.random()() % 8;
    for (int i = 0; i < count; ++i) {
      const std::string id = StrCat("doc", model.random()() % 150);
      const bool known = model.documents().contains(id);
      switch (model.random()() % 4) {
        case 0:
          if (known) changes.push_back(model.Remove(id));
          break;
        case 1:
          if (known) changes.push_back(model.PutMetadata(id));
          break;
        default:
          changes.push_back(model.Put(id, 1 + model.random()() % 9));
      }
    }
    index.Apply(std::move(changes));
  }
}

TEST(ExactIndexTest, EqualsBruteForce) {
  Model model(kSeed);
  ExactIndex index(kDimension, kSmallBlock);
  const CompiledFilter common = GroupBelow(70), rare = GroupBelow(2);
  for (int round = 0; round < 20; ++round) {
    SCOPED_TRACE(StrCat("seed ", kSeed, " round ", round));
    Churn(model, index, 30);
    for (const CompiledFilter* filter : {static_cast<const CompiledFilter*>(nullptr), &common, &rare}) {
      for (const uint32_t per_document : {0, 1, 3}) {
        IndexSearchOptions options{.k = 10, .filter = filter, .chunks_per_document_max = per_document};
        if (round % 2 == 1) options.max_distance = 100;
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
  }
  const IndexStats stats = index.Stats();
  EXPECT_EQ(stats.documents, model.documents().size());
  EXPECT_LT(stats.rows, stats.chunks * 5) << "emptied blocks are given up";
}

TEST(ExactIndexTest, KIsFilledWhenNearlyAllIsFilteredAway) {
  Model model(kSeed);
  ExactIndex index(kDimension, kSmallBlock);
  std::vector<IndexChange> changes;
  changes.reserve(2000);
  for (int i = 0; i < 2000; ++i) changes.push_back(model.Put(StrCat("doc", i), 1));
  index.Apply(std::move(changes));
  pb::Filter filter;
  for (const int wanted : {3, 900, 1999}) {
    auto& value = *filter.mutable_in()->add_values();
    value.set_string_value(StrCat("doc", wanted));
  }
  filter.mutable_in()->mutable_field()->set_builtin(pb::BUILTIN_FIELD_ID);
  const auto compiled = CompiledFilter::Compile(filter, "filter");
  ASSERT_TRUE(compiled.ok());
  const std::vector<float> vector = model.RandomVector();
  const std::vector<IndexQuery> queries = {{vector, {}}};
  const auto hits = index.Search(queries, {.k = 3, .filter = &*compiled}, CallContext());
  ASSERT_TRUE(hits.ok());
  EXPECT_EQ(hits->hits[0].size(), 3u);
  EXPECT_THAT(index.MatchingDocuments(*compiled), testing::UnorderedElementsAre("doc3", "doc900", "doc1999"));
  index.Apply({model.PutMetadata("doc3"), model.Remove("doc900"), model.Put("doc1999", 3)});
  EXPECT_THAT(index.MatchingDocuments(*compiled), testing::UnorderedElementsAre("doc3", "doc1999"));
}

TEST(ExactIndexTest, MemoryCountsWhatIsKnownOfDocuments) {
  Model model(kSeed);
  ExactIndex index(kDimension);
  index.Apply({model.Put("a", 1)});
  const uint64_t small = index.Stats().memory_bytes;
  auto document = std::make_shared<IndexedDocument>(*model.Put("b", 1).document);
  document->title = std::string(10'000, 't');
  document->metadata = {{"key", {std::string(20'000, 'v')}}};
  index.Apply({{"b", document, model.RandomVector()}});
  EXPECT_GT(index.Stats().memory_bytes, small + 30'000);
  index.Apply({model.Remove("b")});
  EXPECT_LT(index.Stats().memory_bytes, small + 30'000);
}

TEST(ExactIndexTest, AloneEqualsInABatch) {
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal;
  ExactIndex index(kDimension);
  std::vector<IndexChange> changes;
  for (int i = 0; i < 3000; ++i) {
    auto document = std::make_shared<IndexedDocument>();
    document->id = StrCat(i);
    document->chunk_count = 1;
    document->first_chunk_id = MakeChunkId(i + 1, 0);
    std::vector<float> vector(kDimension);
    for (float& x : vector) x = normal(random);
    changes.push_back({document->id, document, vector});
  }
  index.Apply(std::move(changes));
  constexpr size_t kQueries = 100;
  std::vector<float> values(kQueries * kDimension);
  for (float& x : values) x = normal(random);
  std::vector<IndexQuery> queries;
  queries.reserve(kQueries);
  for (size_t q = 0; q < kQueries; ++q) queries.push_back({std::span(values).subspan(q * kDimension, kDimension), {}});
  const auto together = index.Search(queries, {.k = 5}, CallContext());
  ASSERT_TRUE(together.ok());
  for (int q = 0; q < 100; ++q) {
    const auto alone = index.Search(std::span(&queries[q], 1), {.k = 5}, CallContext());
    ASSERT_TRUE(alone.ok());
    EXPECT_EQ(Flatten(alone->hits[0]), Flatten(together->hits[q]));
  }
}

// Each step replaces all documents' vectors at once: a search must find all of one step.
TEST(ExactIndexTest, AStepIsSeenWholeOrNotAtAll) {
  constexpr int kDocuments = 40;
  ExactIndex index(1, kSmallBlock);
  const auto step_changes = [&](int step) {
    std::vector<IndexChange> changes;
    for (int i = 0; i < kDocuments; ++i) {
      auto document = std::make_shared<IndexedDocument>();
      document->id = StrCat("doc", i);
      document->chunk_count = 1 + step % 3;
      document->first_chunk_id = MakeChunkId(1000 * (step + 1) + 10 * i, 0);
      changes.push_back({document->id, document, std::vector<float>(document->chunk_count, static_cast<float>(step))});
    }
    return changes;
  };
  index.Apply(step_changes(0));
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int step = 1; step < 400; ++step) index.Apply(step_changes(step));
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

TEST(ExactIndexTest, ACallerWhoLeftIsDropped) {
  Model model(kSeed);
  ExactIndex index(kDimension, kSmallBlock);
  Churn(model, index, 10);
  const std::vector<float> vector = model.RandomVector();
  const std::vector<IndexQuery> queries = {{vector, {}}};
  CallContext context;
  context.cancelled = [] { return true; };
  EXPECT_EQ(index.Search(queries, {.k = 5}, context).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace retro
