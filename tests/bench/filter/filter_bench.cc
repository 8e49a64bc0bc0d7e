// `tests/bench/run.sh filter`: searches with filters in a segment of many documents.
//   filter_bench VECTORS [prepare]      the folder that vectors/make.sh made
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "nlohmann/json.hpp"
#include "retriever_service/index/segmented_index.h"
#include "retriever_service/store/layout.h"
#include "tests/bench/bench.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kDimension = 384;
constexpr uint32_t kK = 10;
constexpr float kEffort = 0.5;
constexpr uint32_t kSeed = 7;
const shardpb::Position kPosition = MakePosition(1, 1);

// A language of 100, a topic of 10, one of two kinds, a year of 1,000, and a time that no other has.
std::shared_ptr<const IndexedDocument> MakeDocument(uint64_t row, std::mt19937& random) {
  auto document = std::make_shared<IndexedDocument>();
  document->id = StrCat("library/shelf-", row % 977, "/book-", row, ".html");
  document->source = StrCat("library/shelf-", row % 977);
  document->first_chunk_id = MakeChunkId(row + 1, 0);
  document->chunk_count = 1;
  document->metadata = {{"kind", {StrCat("kind-", random() % 2)}},
                        {"language", {StrCat("language-", random() % 100)}},
                        {"time", {Time{1'700'000'000 + static_cast<int64_t>(row * 7919 % 1'000'003), 0}}},
                        {"topic", {StrCat("topic-", random() % 10)}},
                        {"year", {static_cast<int64_t>(random() % 1000)}}};
  return document;
}

using Documents = std::vector<std::shared_ptr<const IndexedDocument>>;

void Fill(SegmentedIndex& index, const Documents& documents, std::string_view halves) {
  constexpr size_t kBytes = kDimension * kHalfBytes;
  for (size_t row = 0; row < documents.size(); ++row) {
    if (index.Restore(documents[row])) continue;
    std::vector<IndexChange> changes;
    changes.push_back({documents[row]->id, documents[row], std::string(halves.substr(row * kBytes, kBytes))});
    index.Apply(std::move(changes), kPosition);
  }
  index.Filled();
}

struct Case {
  std::string name;
  std::function<void(pb::Filter&)> make;
};

void Field(const std::string& key, pb::FilterField& field) { field.set_metadata_key(key); }

Case Equal(const std::string& key, const std::string& value) {
  return {StrCat(key, " = ", value), [=](pb::Filter& filter) {
            Field(key, *filter.mutable_equals()->mutable_field());
            filter.mutable_equals()->mutable_value()->set_string_value(value);
          }};
}

Case YearBelow(int year) {
  return {StrCat("year < ", year), [=](pb::Filter& filter) {
            Field("year", *filter.mutable_range()->mutable_field());
            filter.mutable_range()->mutable_less_than()->set_int_value(year);
          }};
}

Case TimeBefore(int64_t seconds) {
  return {StrCat("time within the first ", seconds, " s"), [=](pb::Filter& filter) {
            Field("time", *filter.mutable_range()->mutable_field());
            filter.mutable_range()->mutable_less_than()->mutable_time_value()->set_seconds(1'700'000'000 + seconds);
          }};
}

std::vector<Case> Cases(const Documents& documents) {
  std::vector<Case> cases = {{"id = one",
                              [&](pb::Filter& filter) {
                                filter.mutable_equals()->mutable_field()->set_builtin(pb::BUILTIN_FIELD_ID);
                                filter.mutable_equals()->mutable_value()->set_string_value(documents.back()->id);
                              }},
                             {"id = none",
                              [](pb::Filter& filter) {
                                filter.mutable_equals()->mutable_field()->set_builtin(pb::BUILTIN_FIELD_ID);
                                filter.mutable_equals()->mutable_value()->set_string_value("no such document");
                              }},
                             Equal("language", "language-3"),
                             {"not language = language-3", [](pb::Filter& filter) {
                                Equal("language", "language-3").make(*filter.mutable_none_of()->add_filters());
                              }}};
  for (const int year : {1, 10, 20, 30, 50, 70, 100, 200, 500}) cases.push_back(YearBelow(year));
  for (const int64_t seconds : {100, 10'000, 500'000}) cases.push_back(TimeBefore(seconds));
  cases.push_back(Equal("topic", "topic-3"));
  cases.push_back(Equal("kind", "kind-1"));
  cases.push_back({"topic = topic-3 and kind = kind-1 and year < 500", [](pb::Filter& filter) {
                     Equal("topic", "topic-3").make(*filter.mutable_all_of()->add_filters());
                     Equal("kind", "kind-1").make(*filter.mutable_all_of()->add_filters());
                     YearBelow(500).make(*filter.mutable_all_of()->add_filters());
                   }});
  return cases;
}

// The median of some searches, each with the next query.
double SearchSeconds(const SegmentedIndex& index, std::span<const float> queries, const CompiledFilter* filter,
                     std::optional<float> effort = kEffort) {
  constexpr size_t kSearches = 21;
  const IndexSearchOptions options{.k = kK, .effort = effort, .filter = filter};
  std::vector<double> seconds;
  for (size_t i = 0; i < kSearches; ++i) {
    const std::vector<IndexQuery> query = {{queries.subspan(i * kDimension, kDimension), {}}};
    const Clock::time_point start = Clock::now();
    ValueOrDie(index.Search(query, options, CallContext()));
    seconds.push_back(SecondsSince(start));
  }
  return Percentile(seconds, 0.5);
}

void Measure(const SegmentedIndex& index, const Documents& documents, std::span<const float> queries,
             const Case& filter_case, double unfiltered) {
  pb::Filter filter;
  filter_case.make(filter);
  const CompiledFilter compiled = ValueOrDie(CompiledFilter::Compile(filter, "filter"));
  Clock::time_point start = Clock::now();
  const auto matching = static_cast<size_t>(std::count_if(
      documents.begin(), documents.end(), [&](const auto& document) { return compiled.Matches(*document); }));
  const double looked_at = SecondsSince(start);
  start = Clock::now();
  const size_t listed = index.MatchingDocuments(compiled, UINT64_MAX, SIZE_MAX, CallContext())->size();
  const double listed_seconds = SecondsSince(start);
  const double ours = SearchSeconds(index, queries, &compiled);
  std::cout << nlohmann::json{{"bench", "filter"},
                              {"filter", filter_case.name},
                              {"share", static_cast<double>(matching) / static_cast<double>(documents.size())},
                              {"ours", ours},
                              {"peer", looked_at},
                              {"peer_name", "looking at every document"},
                              {"unit", "s"},
                              {"without_filter", unfiltered},
                              {"exact", SearchSeconds(index, queries, &compiled, std::nullopt)},
                              {"list_ids", listed_seconds},
                              {"ratio", looked_at / ours},
                              {"pass", ours <= looked_at && listed == matching},
                              {"valid", true}}
            << std::endl;
}

int Main(const std::string& folder, bool prepare) {
  const MappedFile vectors = ValueOrDie(MappedFile::Open(folder + "/base.f16"));
  const std::string query_bytes = ValueOrDie(ReadFile(folder + "/queries.f32"));
  const std::span queries(reinterpret_cast<const float*>(query_bytes.data()), query_bytes.size() / sizeof(float));
  std::mt19937 random(kSeed);
  Documents documents(vectors.bytes().size() / (kDimension * kHalfBytes));
  for (size_t row = 0; row < documents.size(); ++row) documents[row] = MakeDocument(row, random);
  SegmentedIndexOptions options;
  options.settings.threads = 2;
  options.settings.seal_rows = documents.size();
  options.folder = folder + "/filter";
  options.identity = {std::string(16, 'f'), 0, static_cast<int>(kDimension), options.settings.kind};
  options.background = false;
  if (prepare) {
    SegmentedIndex index(options, kPosition);
    Fill(index, documents, vectors.bytes());
    return index.Maintain().ok() ? 0 : 1;  // one segment of all of it
  }
  const uint64_t before = ResidentBytes("RssAnon");
  SegmentedIndex index(options, kPosition);
  for (const auto& document : documents) {
    if (!index.Restore(document)) return 2;  // prepare it first
  }
  const uint64_t restored = ResidentBytes("RssAnon");
  const Clock::time_point start = Clock::now();
  index.Filled();
  std::cout << nlohmann::json{{"bench", "filter"},
                              {"documents", documents.size()},
                              {"make_lists_seconds", SecondsSince(start)},
                              {"lists_bytes_a_document", static_cast<double>(ResidentBytes("RssAnon") - restored) /
                                                             static_cast<double>(documents.size())},
                              {"index_bytes_a_document",
                               static_cast<double>(restored - before) / static_cast<double>(documents.size())}}
            << std::endl;
  const double unfiltered = SearchSeconds(index, queries, /*filter=*/nullptr);
  for (const Case& filter_case : Cases(documents)) Measure(index, documents, queries, filter_case, unfiltered);
  return 0;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: filter_bench VECTORS [prepare]\n");
    return 2;
  }
  return retro::Main(argv[1], argc > 2);
}
