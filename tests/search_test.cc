// Whole searches over shards of this process, against a plain list of what they hold: whatever is asked, the answer is
// an error that names what is wrong or what comparing every chunk gives; and what is left while a shard is gone.
#include "retriever_service/query/search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "retriever_service/cluster/cluster_file.h"
#include "retriever_service/embed/hash_embedder.h"
#include "retriever_service/query/consistency_token.h"
#include "retriever_service/query/limits.h"
#include "retriever_service/query/router.h"
#include "retriever_service/serve/validate.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/shard/remote_shard.h"
#include "retriever_service/store/layout.h"
#include "tests/free_port.h"
#include "tests/index_model.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr uint32_t kSeed = 20261126;
constexpr int kDimension = 8;
constexpr char kStoreId[] = "0123456789abcdef";

std::string Fingerprint() { return HashEmbedder(kDimension).info().fingerprint; }

std::string TextOf(uint64_t chunk_id) { return StrCat(100'000'000 + chunk_id); }

shardpb::DocumentChange ToShardChange(const IndexChange& from) {
  constexpr size_t kVectorBytes = kDimension * kHalfBytes;
  pb::Document document;
  document.set_id(from.document_id);
  document.set_source(from.document->source);
  CopyMetadata(*from.document, document.mutable_metadata());
  shardpb::DocumentChange change;
  for (uint32_t i = 0; i < from.document->chunk_count; ++i) {
    document.mutable_text()->append(TextOf(ChunkIdAt(from.document->first_chunk_id, i)));
    shardpb::ChunkContent& chunk = *change.add_chunks();
    chunk.set_end(document.text().size());
    chunk.set_vector_fp16(from.vectors.substr(i * kVectorBytes, kVectorBytes));
  }
  change.set_content_hash(ContentHash(document));
  change.set_text_hash(TextHash(document.text()));
  *change.mutable_document() = std::move(document);
  return change;
}

void Write(LocalShard& shard, const std::vector<IndexChange>& changes) {
  shardpb::WriteRequest request;
  request.set_embedder_fingerprint(Fingerprint());
  for (const IndexChange& change : changes) *request.add_changes() = ToShardChange(change);
  const auto response = shard.Write(request, CallContext());
  ASSERT_TRUE(response.ok()) << response.status();
  for (const auto& result : response->results()) ASSERT_FALSE(result.has_error()) << result.error().message();
}

class SearchTest : public testing::Test {
 protected:
  SearchTest() : model_(kDimension, kSeed), batcher_(std::make_unique<HashEmbedder>(kDimension)), embedding_(batcher_) {
    spdlog::set_level(spdlog::level::off);
  }

  std::unique_ptr<LocalShard> Open(uint32_t number, uint32_t count) {
    LocalShardOptions options;
    options.store.path = folder_ / StrCat(number);
    options.store.store_id = kStoreId;
    options.store.shard = number;
    options.store.shard_count = count;
    options.index.seal_rows = 300;
    options.default_collection.emplace().set_dimension(kDimension);
    options.default_collection->set_embedder_fingerprint(Fingerprint());
    auto shard = LocalShard::Open(options);
    EXPECT_TRUE(shard.ok()) << shard.status();
    return *std::move(shard);
  }

  absl::StatusOr<pb::SearchResponse> Search(ShardMap& shards, const pb::SearchRequest& request) {
    const absl::Status valid = Validate(request);
    if (!valid.ok()) return valid;
    return Router(shards, embedding_, /*waiting_reads_max=*/4)
        .Search(request, CallContext(), std::chrono::steady_clock::now());
  }

  TemporaryFolder folder_;
  IndexModel model_;
  EmbedBatcher batcher_;
  Embedding embedding_;
};

// ---------------------------------------------------------------- whatever is asked

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();

template <typename T>
const T& OneOf(std::mt19937& random, std::initializer_list<T> values) {
  return *(values.begin() + random() % values.size());
}

// A number of its place in every request's vectors, beyond what squares can hold among them.
void MakeExtreme(std::mt19937& random, std::vector<float>& vector) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kTiny = std::numeric_limits<float>::denorm_min();
  switch (random() % 4) {
    case 0:
      vector.assign(vector.size(), OneOf(random, {0.0F, -0.0F, kTiny, -kTiny}));
      break;
    case 1:
      vector[random() % vector.size()] = OneOf(random, {1e18F, -1e18F});
      break;
    case 2:
      vector[random() % vector.size()] = OneOf(random, {kMax, -kMax});
      break;
    default:
      break;
  }
}

pb::Filter MakeFilter(std::mt19937& random) {
  pb::Filter filter = RandomFilterMessage(random);
  if (random() % 8 == 0) filter.mutable_all_of();  // everything
  if (random() % 8 == 0) filter.mutable_any_of();  // nothing
  for (uint32_t depth = random() % 4 == 0 ? random() % 12 : 0; depth > 0; --depth) {
    pb::Filter outer;
    pb::FilterList& list = depth % 3 == 0   ? *outer.mutable_none_of()
                           : depth % 3 == 1 ? *outer.mutable_any_of()
                                            : *outer.mutable_all_of();
    *list.add_filters() = std::move(filter);
    filter = std::move(outer);
  }
  return filter;
}

pb::SearchRequest MakeRequest(IndexModel& model) {
  std::mt19937& random = model.random();
  const auto one_in = [&](uint32_t n) { return random() % n == 0; };
  pb::SearchRequest request;
  for (uint32_t i = one_in(8) ? random() % 4 : 0; request.queries_size() <= static_cast<int>(i);) {
    pb::Query& query = *request.add_queries();
    std::vector<float> vector = model.RandomVector();
    if (one_in(4)) MakeExtreme(random, vector);
    query.mutable_vector()->mutable_values()->Assign(vector.begin(), vector.end());
    query.set_embedder_fingerprint(Fingerprint());
    for (uint32_t n = one_in(4) ? random() % 5 : 0; n > 0; --n) {
      query.add_exclude_document_ids(StrCat("doc", random() % 250));
    }
  }
  for (uint32_t n = one_in(4) ? random() % 200 : 0; n > 0; --n) {
    request.add_exclude_document_ids(StrCat("doc", random() % 250));
  }
  if (!one_in(8)) request.set_k(one_in(16) ? 1 + random() % kNeighboursMax : 1 + random() % 20);
  if (one_in(64)) request.set_k(kNeighboursMax);
  if (!one_in(3)) request.mutable_effort()->set_exact(true);
  if (one_in(4)) request.mutable_effort()->set_level(OneOf(random, {0.0F, 0.1F, 0.5F, 0.9F, 1.0F}));
  if (one_in(4)) request.set_max_distance(OneOf(random, {1e-45F, 1.0F, 20.0F, 50.5F, 1e30F, kInfinity}));
  if (one_in(2)) *request.mutable_filter() = MakeFilter(random);
  if (one_in(4)) request.set_max_chunks_per_document(one_in(4) ? kMost : 1 + random() % 3);
  if (one_in(2)) request.mutable_fields()->set_metadata(false);
  if (one_in(2)) request.set_allow_partial(true);
  if (one_in(8)) request.mutable_max_wait()->set_nanos(999'999'999);
  return request;
}

using Random = std::mt19937;
using Request = pb::SearchRequest;

// Makes one thing of a request wrong.
struct Fault {
  Reason reason;
  const char* field;  // that the error names, or what holds it
  void (*make)(Random& random, Request& request);
};
const Fault kFaults[] = {
    {Reason::kInvalidField, "queries", [](Random&, Request& request) { request.clear_queries(); }},
    {Reason::kInvalidField, "queries",
     [](Random&, Request& request) {
       while (request.queries_size() <= kQueriesMax) *request.add_queries() = request.queries(0);
     }},
    {Reason::kInvalidField, "k",
     [](Random& random, Request& request) {
       request.set_k(OneOf(random, {0U, 1001U, 1'000'000U, kMost}));
     }},
    {Reason::kInvalidField, "queries[0].vector",
     [](Random& random, Request& request) {
       auto& values = *request.mutable_queries(0)->mutable_vector()->mutable_values();
       values[static_cast<int>(random() % values.size())] = OneOf(random, {kNan, kInfinity, -kInfinity});
     }},
    {Reason::kInvalidField, "queries[0].vector",
     [](Random& random, Request& request) {
       auto& vector = *request.mutable_queries(0)->mutable_vector();
       vector.mutable_values()->Resize(OneOf(random, {0, 1, kDimension - 1, kDimension + 1, 5000}), 1);
     }},
    {Reason::kInvalidField, "queries[0]", [](Random&, Request& request) { request.mutable_queries(0)->clear_query(); }},
    {Reason::kInvalidField, "queries[0].text",
     [](Random& random, Request& request) {
       request.mutable_queries(0)->set_text(std::string(OneOf(random, {size_t{0}, kQueryTextBytesMax + 1}), 'x'));
     }},
    {Reason::kInvalidField, "queries[0].embedder_fingerprint",
     [](Random&, Request& request) { request.mutable_queries(0)->clear_embedder_fingerprint(); }},
    {Reason::kInvalidField, "effort",
     [](Random& random, Request& request) {
       request.mutable_effort()->Clear();
       if (random() % 4 == 0) request.mutable_effort()->set_exact(false);
       if (random() % 2 == 0) request.mutable_effort()->set_level(OneOf(random, {kNan, -0.1F, 1.1F, kInfinity}));
     }},
    {Reason::kInvalidField, "max_distance",
     [](Random& random, Request& request) {
       request.set_max_distance(OneOf(random, {kNan, 0.0F, -0.0F, -1.0F, -kInfinity}));
     }},
    {Reason::kInvalidField, "exclude_document_ids",
     [](Random& random, Request& request) {
       request.add_exclude_document_ids(std::string(OneOf(random, {0, 513, 100'000}), 'x'));
     }},
    {Reason::kInvalidField, "exclude_document_ids",
     [](Random&, Request& request) {
       while (request.exclude_document_ids_size() <= 1024) request.add_exclude_document_ids("doc");
     }},
    {Reason::kInvalidField, "queries[0].exclude_document_ids",
     [](Random&, Request& request) { request.mutable_queries(0)->add_exclude_document_ids(""); }},
};
const Fault kMoreFaults[] = {
    {Reason::kInvalidField, "max_chunks_per_document",
     [](Random&, Request& request) { request.set_max_chunks_per_document(0); }},
    {Reason::kInvalidField, "max_wait",
     [](Random& random, Request& request) {
       request.mutable_max_wait()->set_seconds(
           OneOf(random, {int64_t{-1}, int64_t{61}, std::numeric_limits<int64_t>::max()}));
     }},
    {Reason::kInvalidField, "filter",
     [](Random&, Request& request) {
       for (int depth = 0; depth <= kFilterDepthMax; ++depth) {
         pb::Filter outer;
         outer.mutable_all_of()->add_filters()->Swap(request.mutable_filter());
         request.mutable_filter()->Swap(&outer);
       }
     }},
    {Reason::kInvalidField, "filter",
     [](Random&, Request& request) { request.mutable_filter()->mutable_equals()->clear_field(); }},
    {Reason::kInvalidField, "filter",
     [](Random&, Request& request) {
       request.mutable_filter()->mutable_in()->mutable_field()->set_metadata_key("tag");
       while (request.filter().in().values_size() <= kFilterSizeMax) {
         request.mutable_filter()->mutable_in()->add_values()->set_int_value(1);
       }
     }},
    {Reason::kInvalidField, "filter",
     [](Random&, Request& request) {
       auto& range = *request.mutable_filter()->mutable_range();
       range.mutable_field()->set_metadata_key("size");
       range.mutable_at_least()->set_number_value(std::numeric_limits<double>::quiet_NaN());
     }},
    {Reason::kInvalidField, "consistency_token",
     [](Random& random, Request& request) {
       for (uint32_t i = 1 + random() % 40; i > 0; --i)
         *request.mutable_consistency_token() += static_cast<char>(random());
     }},
    {Reason::kEmbedderMismatch, "",
     [](Random&, Request& request) { request.mutable_queries(0)->set_embedder_fingerprint("another"); }},
    {Reason::kCollectionNotFound, "", [](Random&, Request& request) { request.set_collection("none"); }},
};

const Fault& AnyFault(Random& random) {
  const size_t number = random() % (std::size(kFaults) + std::size(kMoreFaults));
  return number < std::size(kFaults) ? kFaults[number] : kMoreFaults[number - std::size(kFaults)];
}

// As a shard gets it from a router that checks nothing.
shardpb::SearchRequest Unchecked(const pb::SearchRequest& request) {
  shardpb::SearchRequest to;
  to.set_collection(request.collection());
  to.set_k(request.k());
  for (const pb::Query& query : request.queries()) {
    *to.add_queries()->mutable_vector() = query.vector();
    *to.mutable_queries(to.queries_size() - 1)->mutable_exclude_document_ids() = query.exclude_document_ids();
  }
  if (request.has_effort()) *to.mutable_effort() = request.effort();
  if (request.has_max_distance()) to.set_max_distance(request.max_distance());
  if (request.has_filter()) *to.mutable_filter() = request.filter();
  to.set_max_chunks_per_document(request.max_chunks_per_document());
  return to;
}

class HostileSearchTest : public SearchTest {
 protected:
  // Some documents in sealed segments, some in the growing one, some replaced, some gone.
  HostileSearchTest() {
    auto shard = Open(0, 1);
    shard_ = shard.get();
    std::vector<std::unique_ptr<Shard>> shards;
    shards.push_back(std::move(shard));
    map_ = *ShardMap::Create(std::move(shards));
    PutAll(0, 150);
    EXPECT_TRUE(shard_->SealIndex("").ok() && shard_->WaitForIndexes(0).ok());
    PutAll(130, 200);
    shardpb::DeleteRequest deletion;
    for (int i = 0; i < 200; i += 9) {
      deletion.add_document_ids(StrCat("doc", i));
      model_.Remove(StrCat("doc", i));
    }
    EXPECT_TRUE(shard_->Delete(deletion, CallContext()).ok());
  }

  void PutAll(int begin, int end) {
    std::vector<IndexChange> changes;
    for (int i = begin; i < end; ++i) changes.push_back(model_.Put(StrCat("doc", i), 1 + i % 7));
    Write(*shard_, changes);
  }

  static IndexSearchOptions OptionsOf(const pb::SearchRequest& request, const CompiledFilter* filter) {
    IndexSearchOptions options;
    options.k = request.has_k() ? request.k() : kNeighboursDefault;
    options.filter = filter;
    if (request.has_max_distance()) options.max_distance = request.max_distance();
    options.chunks_per_document_max = request.max_chunks_per_document();
    return options;
  }

  void ExpectRight(const pb::SearchRequest& request, const pb::SearchResponse& response) {
    std::optional<CompiledFilter> filter;
    if (request.has_filter()) filter = *CompiledFilter::Compile(request.filter(), "filter");
    const IndexSearchOptions options = OptionsOf(request, filter.has_value() ? &*filter : nullptr);
    ASSERT_EQ(response.results_size(), request.queries_size());
    for (int q = 0; q < request.queries_size(); ++q) {
      IndexQuery query{std::span(request.queries(q).vector().values().data(), kDimension), {}};
      const auto& own = request.queries(q).exclude_document_ids();
      query.excluded_ids.insert(own.begin(), own.end());
      query.excluded_ids.insert(request.exclude_document_ids().begin(), request.exclude_document_ids().end());
      Hits found;
      for (const pb::Neighbour& neighbour : response.results(q).neighbours()) {
        found.emplace_back(neighbour.distance(), neighbour.chunk().chunk_id());
        ExpectFacts(neighbour);
      }
      const Hits nearest = model_.BruteForce(query, options);
      if (request.effort().exact()) {
        EXPECT_EQ(found, nearest);
      } else {
        ExpectAmong(query, options, nearest.size(), found);
      }
    }
  }

  // An approximate answer: each may be in it, they are in order, and there are as many as there could be.
  void ExpectAmong(const IndexQuery& query, IndexSearchOptions options, size_t most, const Hits& found) const {
    EXPECT_TRUE(std::is_sorted(found.begin(), found.end()));
    EXPECT_LE(found.size(), most);
    EXPECT_TRUE(options.max_distance.has_value() || found.size() == most) << found.size() << " of " << most;
    options.k = kMost;
    options.chunks_per_document_max = 0;
    const Hits all = model_.BruteForce(query, options);
    EXPECT_TRUE(std::includes(all.begin(), all.end(), found.begin(), found.end()));
  }

  void ExpectFacts(const pb::Neighbour& neighbour) const {
    const IndexedDocument& document = *model_.documents().at(neighbour.document_id()).document;
    const pb::Chunk& chunk = neighbour.chunk();
    EXPECT_EQ(chunk.chunk_id(), ChunkIdAt(document.first_chunk_id, chunk.chunk_number()));
    EXPECT_EQ(chunk.text(), TextOf(chunk.chunk_id()));
    EXPECT_EQ(neighbour.has_continuation(), chunk.chunk_number() + 1 < document.chunk_count);
    EXPECT_EQ(neighbour.source(), document.source);
  }

  LocalShard* shard_ = nullptr;
  std::unique_ptr<ShardMap> map_;
};

TEST_F(HostileSearchTest, AnswersAreRightOrAnErrorThatNamesWhatIsWrong) {
  constexpr int kRequests = 10'000;
  std::printf("seed %u\n", kSeed);
  std::mt19937& random = model_.random();
  for (int i = 0; i < kRequests && !HasFailure(); ++i) {
    pb::SearchRequest request = MakeRequest(model_);
    const Fault* const wrong = random() % 3 == 0 ? &AnyFault(random) : nullptr;
    if (wrong != nullptr) wrong->make(random, request);
    SCOPED_TRACE(StrCat("request ", i, ": ", request.ShortDebugString().substr(0, 2000)));
    const auto response = Search(*map_, request);
    if (wrong != nullptr) {
      EXPECT_EQ(ReasonOf(response.status()), wrong->reason) << response.status();
      EXPECT_TRUE(FieldOf(response.status()).value_or("").starts_with(wrong->field)) << response.status();
    } else {
      ASSERT_TRUE(response.ok()) << response.status();
      ExpectRight(request, *response);
    }
    const auto unchecked = shard_->Search(Unchecked(request), CallContext());
    EXPECT_TRUE(unchecked.ok() || ReasonOf(unchecked.status()).has_value()) << unchecked.status();
    if (!unchecked.ok()) continue;
    for (const auto& result : unchecked->results()) {
      EXPECT_LE(result.neighbours_size(), static_cast<int>(request.k()));
    }
  }
}

// ---------------------------------------------------------------- what a search takes

class OneSearchTest : public SearchTest {
 protected:
  OneSearchTest() {
    std::vector<std::unique_ptr<Shard>> shards;
    shards.push_back(Open(0, 1));
    position_ = shards[0]->GetShardInfo({}, CallContext())->position();
    map_ = *ShardMap::Create(std::move(shards));
  }

  static absl::Status Ask(Router& router, const pb::SearchRequest& request, const CallContext& context) {
    return router.Search(request, context, std::chrono::steady_clock::now()).status();
  }

  pb::SearchRequest OneQuery() {
    const std::vector<float> vector = model_.RandomVector();
    pb::SearchRequest request;
    request.add_queries()->mutable_vector()->mutable_values()->Assign(vector.begin(), vector.end());
    request.mutable_queries(0)->set_embedder_fingerprint(Fingerprint());
    return request;
  }

  // Which waits long for what is so many changes away.
  pb::SearchRequest Patient(uint64_t changes) {
    shardpb::ConsistencyToken token;
    token.set_store_id(kStoreId);
    Cover(token, 0, MakePosition(position_.epoch(), position_.number() + changes));
    pb::SearchRequest request = OneQuery();
    request.set_consistency_token(EncodeConsistencyToken(token));
    request.mutable_max_wait()->set_seconds(60);
    return request;
  }

  shardpb::Position position_;
  std::unique_ptr<ShardMap> map_;
};

// Whoever made them up would else hold every worker for as long as he likes.
TEST_F(OneSearchTest, OnlySoManyWaitForWhatTheirTokensCover) {
  CallContext second;
  second.cancelled = [end = std::chrono::steady_clock::now() + std::chrono::seconds(1)] {
    return std::chrono::steady_clock::now() > end;
  };
  Router none(*map_, embedding_, /*waiting_reads_max=*/0), one(*map_, embedding_, /*waiting_reads_max=*/1);
  EXPECT_EQ(ReasonOf(Ask(none, Patient(1'000'000), CallContext())), Reason::kBehindToken);
  EXPECT_TRUE(Ask(none, Patient(0), CallContext()).ok()) << "it need not wait";
  EXPECT_EQ(Ask(one, Patient(1'000'000), second).code(), absl::StatusCode::kCancelled);
}

TEST(WaitingReadsTest, TheLastPlaceIsForWhoHasNone) {
  WaitingReads reads(2);
  std::optional<WaitingPlace> large(std::in_place, reads, "large");
  WaitingPlace larger(reads, "large"), small(reads, "small"), nobody(reads, "");
  EXPECT_TRUE(large->Take());
  EXPECT_FALSE(larger.Take());
  EXPECT_TRUE(small.Take());
  EXPECT_FALSE(nobody.Take());
  large.reset();
  EXPECT_TRUE(larger.Take());
}

TEST_F(OneSearchTest, WhatIsSentToTheShardsTakesMemory) {
  Router router(*map_, embedding_, /*waiting_reads_max=*/1);
  pb::SearchRequest request = OneQuery();
  auto& in = *request.mutable_filter()->mutable_in();
  in.mutable_field()->set_metadata_key("size");
  for (int i = 0; i < 1000; ++i) in.add_values()->set_int_value(i);
  size_t held = 0;
  CallContext context;
  context.hold = [&held](size_t bytes) { return (held += bytes) > 0; };
  EXPECT_TRUE(Ask(router, request, context).ok());
  EXPECT_GT(held, request.ByteSizeLong());
  context.hold = [](size_t) { return false; };
  EXPECT_EQ(ReasonOf(Ask(router, request, context)), Reason::kQueueFull);
}

// ---------------------------------------------------------------- a shard that is gone

class PartialSearchTest : public SearchTest {
 protected:
  // Of three shards number 1 is at a port where nobody listens.
  PartialSearchTest() {
    ClusterConfig config;
    config.store_id = kStoreId;
    config.shards.resize(3);
    config.shards[1].epoch = 1;
    config.shards[1].primary = "gone";
    config.shards[1].in_sync = {"gone"};
    config.shards[1].replicas = {{"gone", StrCat("127.0.0.1:", FreePort())}};
    config_ = std::make_shared<const ClusterConfig>(config);
    std::vector<std::unique_ptr<Shard>> shards;
    for (uint32_t i = 0; i < 3; ++i) {
      if (i == 1) {
        shards.push_back(
            std::make_unique<RemoteShard>(i, ClusterView{[this] { return config_; }, [] {}, {}}, metrics_));
        continue;
      }
      auto shard = Open(i, 3);
      locals_.push_back(shard.get());
      shards.push_back(std::move(shard));
    }
    map_ = ShardMap::OfCluster(std::move(shards), kStoreId, {kSlotCount / 3, kSlotCount * 2 / 3, kSlotCount - 1});
    std::vector<IndexChange> changes[3];
    for (int i = 0; changes[0].size() < 40 || changes[2].size() < 40; ++i) {
      const std::string id = StrCat("doc", i);
      const uint32_t shard = map_->ShardOfDocument(id);
      if (shard != 1) changes[shard].push_back(model_.Put(id, 1 + i % 7));
    }
    Write(*locals_[0], changes[0]);
    Write(*locals_[1], changes[2]);
  }

  pb::SearchRequest Everything() {
    const std::vector<float> vector = model_.RandomVector();
    pb::SearchRequest request;
    request.add_queries()->mutable_vector()->mutable_values()->Assign(vector.begin(), vector.end());
    request.mutable_queries(0)->set_embedder_fingerprint(Fingerprint());
    request.mutable_effort()->set_exact(true);
    request.set_k(kNeighboursMax);
    return request;
  }

  Metrics metrics_;
  std::shared_ptr<const ClusterConfig> config_;
  std::vector<LocalShard*> locals_;
  std::unique_ptr<ShardMap> map_;
};

TEST_F(PartialSearchTest, WithoutItTheOthersAnswerIfTheCallerAllowsThat) {
  pb::SearchRequest request = Everything();
  const auto whole = Search(*map_, request);
  EXPECT_EQ(whole.status().code(), absl::StatusCode::kUnavailable) << whole.status();
  EXPECT_EQ(ReasonOf(whole.status()), Reason::kShardUnavailable);
  EXPECT_THAT(std::string(MessageOf(whole.status())), testing::HasSubstr("shard 1"));

  request.set_allow_partial(true);
  const auto part = Search(*map_, request);
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(part->coverage().shards_answered(), 2u);
  EXPECT_EQ(part->coverage().shards_asked(), 3u);
  const IndexQuery query{std::span(request.queries(0).vector().values().data(), kDimension), {}};
  std::map<uint64_t, std::string> documents;  // by chunk
  for (const auto& [id, change] : model_.documents()) {
    for (uint32_t i = 0; i < change.document->chunk_count; ++i) {
      documents[ChunkIdAt(change.document->first_chunk_id, i)] = id;
    }
  }
  std::vector<std::pair<float, std::string>> wanted, found;
  for (const auto& [distance, chunk] : model_.BruteForce(query, {.k = kNeighboursMax})) {
    wanted.emplace_back(distance, documents.at(chunk));
  }
  for (const pb::Neighbour& neighbour : part->results(0).neighbours()) {
    EXPECT_EQ(neighbour.shard(), map_->ShardOfDocument(neighbour.document_id()));
    found.emplace_back(neighbour.distance(), neighbour.document_id());
  }
  EXPECT_TRUE(
      std::is_sorted(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; }));
  std::sort(wanted.begin(), wanted.end());
  std::sort(found.begin(), found.end());
  EXPECT_EQ(found, wanted);
}

// What an error of those that are there says is not that they are gone.
TEST_F(PartialSearchTest, AnErrorOfTheOthersIsOne) {
  pb::SearchRequest request = Everything();
  request.set_allow_partial(true);
  request.mutable_filter();
  EXPECT_EQ(FieldOf(Search(*map_, request).status()), "filter");
}

TEST_F(PartialSearchTest, NoShardAtAllIsAnErrorHoweverLittleIsAskedFor) {
  std::vector<std::unique_ptr<Shard>> shards;
  shards.push_back(std::make_unique<RemoteShard>(1, ClusterView{[this] { return config_; }, [] {}, {}}, metrics_));
  const auto map = ShardMap::OfCluster(std::move(shards), kStoreId, {kSlotCount - 1});
  pb::SearchRequest request = Everything();
  request.set_allow_partial(true);
  const absl::Status status = Search(*map, request).status();
  EXPECT_EQ(ReasonOf(status), Reason::kShardUnavailable) << status;
  EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr("shard 1"));
}

}  // namespace
}  // namespace retro
