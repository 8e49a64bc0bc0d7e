#include "tests/index_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <tuple>
#include <variant>

#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/store/layout.h"

namespace retro {

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

namespace {

constexpr uint32_t kFewValues = 12;  // of a field, so that conditions meet some documents

Value RandomNumber(std::mt19937& random) {
  const auto whole = static_cast<int64_t>(random() % kFewValues) - kFewValues / 2;
  switch (random() % 4) {
    case 0:
      return static_cast<double>(whole);  // equal to one that is whole
    case 1:
      return static_cast<double>(whole) + 0.5;
    case 2:
      return (int64_t{1} << 53) + whole;  // beyond what a double can tell apart
    default:
      return whole;
  }
}

Value RandomValue(const std::string& field, std::mt19937& random) {
  if (field == "size") return RandomNumber(random);
  if (field == "when") {
    return Time{static_cast<int64_t>(random() % 3) - 1, static_cast<int32_t>(random() % 3)};
  }
  if (field == "mixed") {
    if (random() % 3 == 0) return RandomNumber(random);
    if (random() % 2 == 0) return Time{0, static_cast<int32_t>(random() % 3)};
    return std::string(random() % 3, 'm');
  }
  if (field == "group") return static_cast<int64_t>(random() % 1000);
  return StrCat(field == "id" ? "doc" : "a long common beginning/", random() % (field == "id" ? 600 : kFewValues));
}

void SetField(const std::string& field, pb::FilterField& to) {
  if (field == "id" || field == "source") {
    to.set_builtin(field == "id" ? pb::BUILTIN_FIELD_ID : pb::BUILTIN_FIELD_SOURCE);
  } else {
    to.set_metadata_key(field);
  }
}

void FillRange(const std::string& field, std::mt19937& random, pb::RangeFilter& range) {
  const Value lower = RandomValue(field, random);
  const uint32_t ends = random() % 3;
  if (ends != 0) CopyValue(lower, random() % 2 == 0 ? range.mutable_at_least() : range.mutable_greater_than());
  if (ends == 1) return;
  Value upper = RandomValue(field, random);
  while (ClassOf(upper) != ClassOf(lower)) upper = RandomValue(field, random);
  CopyValue(upper, random() % 2 == 0 ? range.mutable_at_most() : range.mutable_less_than());
}

void FillFilter(std::mt19937& random, int depth, pb::Filter& filter) {
  const char* const fields[] = {"id", "source", "tag", "size", "when", "mixed", "group", "no such key"};
  const std::string field = fields[random() % std::size(fields)];
  const uint32_t kind = random() % (depth > 0 ? 8 : 4);
  if (kind >= 4) {
    pb::FilterList& list = kind == 4   ? *filter.mutable_none_of()
                           : kind == 5 ? *filter.mutable_all_of()
                                       : *filter.mutable_any_of();
    for (uint32_t i = random() % 4; i > 0; --i) FillFilter(random, depth - 1, *list.add_filters());
  } else if (kind == 0) {
    SetField(field, *filter.mutable_equals()->mutable_field());
    CopyValue(RandomValue(field, random), filter.mutable_equals()->mutable_value());
  } else if (kind == 1) {
    SetField(field, *filter.mutable_in()->mutable_field());
    for (uint32_t i = 1 + random() % 5; i > 0; --i) {
      CopyValue(RandomValue(field, random), filter.mutable_in()->add_values());
    }
  } else if (kind == 2) {
    SetField(field, *filter.mutable_range()->mutable_field());
    FillRange(field, random, *filter.mutable_range());
  } else {
    SetField(field, *filter.mutable_exists()->mutable_field());
  }
}

}  // namespace

pb::Filter RandomFilterMessage(std::mt19937& random) {
  pb::Filter filter;
  FillFilter(random, 3, filter);
  return filter;
}

CompiledFilter RandomFilter(std::mt19937& random) {
  const pb::Filter filter = RandomFilterMessage(random);
  auto compiled = CompiledFilter::Compile(filter, "filter");
  EXPECT_TRUE(compiled.ok()) << compiled.status() << ": " << filter.ShortDebugString();
  return *std::move(compiled);
}

void IndexModel::GiveFacts(IndexedDocument& document) {
  document.source.clear();
  document.metadata = {{"group", {static_cast<int64_t>(random_() % 1000)}}};
  if (random_() % 4 != 0) document.source = std::get<std::string>(RandomValue("source", random_));
  for (const char* key : {"mixed", "size", "tag", "when"}) {  // in order, as the index wants them
    std::vector<Value> values;
    for (uint32_t i = random_() % 4; i > 1; --i) values.push_back(RandomValue(key, random_));
    if (!values.empty() || random_() % 8 == 0) document.metadata.emplace_back(key, std::move(values));
  }
}

std::vector<std::string> IndexModel::Matching(const CompiledFilter& filter) const {
  std::vector<std::string> ids;
  for (const auto& [id, change] : documents_) {
    if (filter.Matches(*change.document)) ids.push_back(id);
  }
  return ids;
}

std::vector<float> IndexModel::RandomVector() {
  std::uniform_int_distribution<int> coordinate(-3, 3);
  std::vector<float> vector(dimension_);
  for (float& x : vector) x = static_cast<float>(coordinate(random_));
  return vector;
}

std::vector<float> IndexModel::ClusteredVector(uint32_t clusters) {
  std::mt19937 centre(random_() % clusters);
  std::normal_distribution<float> wide(0, 4), narrow;
  std::vector<float> vector(dimension_);
  for (float& x : vector) x = std::round((wide(centre) + narrow(random_)) * 16) / 16;
  return vector;
}

IndexChange IndexModel::Put(const std::string& id, uint32_t chunks, uint32_t clusters) {
  auto document = std::make_shared<IndexedDocument>();
  document->id = id;
  document->chunk_count = chunks;
  document->first_chunk_id = MakeChunkId(next_chunk_, SlotOfDocument(id));
  GiveFacts(*document);
  next_chunk_ += chunks;
  IndexChange change{id, document, {}};
  for (uint32_t i = 0; i < chunks; ++i) {
    const std::vector<float> vector = clusters == 0 ? RandomVector() : ClusteredVector(clusters);
    change.vectors += ToHalf(vector);
  }
  documents_[id] = change;
  return change;
}

IndexChange IndexModel::PutMetadata(const std::string& id) {
  auto document = std::make_shared<IndexedDocument>(*documents_.at(id).document);
  GiveFacts(*document);
  documents_[id].document = document;
  return {id, document, {}};
}

IndexChange IndexModel::Remove(const std::string& id) {
  documents_.erase(id);
  return {id, nullptr, {}};
}

std::vector<IndexChange> IndexModel::Churn(int changes, uint32_t ids, uint32_t clusters, bool of_metadata) {
  std::vector<IndexChange> made;
  while (changes-- > 0) {
    const std::string id = StrCat("doc", random_() % ids);
    const bool known = documents_.contains(id);
    switch (random_() % 4) {
      case 0:
        if (known) made.push_back(Remove(id));
        break;
      case 1:
        if (known && of_metadata) made.push_back(PutMetadata(id));
        break;
      default:
        made.push_back(Put(id, 1 + random_() % 9, clusters));
    }
  }
  return made;
}

Hits IndexModel::BruteForce(const IndexQuery& query, const IndexSearchOptions& options) const {
  std::vector<std::tuple<float, uint64_t, const IndexedDocument*>> rows;
  std::vector<float> vector(dimension_);
  const size_t vector_bytes = vector.size() * kHalfBytes;
  for (const auto& [id, change] : documents_) {
    if (query.excluded_ids.contains(id)) continue;
    if (options.filter != nullptr && !options.filter->Matches(*change.document)) continue;
    for (uint32_t i = 0; i < change.document->chunk_count; ++i) {
      FromHalf(std::string_view(change.vectors).substr(i * vector_bytes, vector_bytes), vector);
      float distance = 0;
      for (int j = 0; j < dimension_; ++j) {
        const float difference = query.vector[j] - vector[j];
        distance += difference * difference;
      }
      if (options.max_distance.has_value() && distance > *options.max_distance) continue;
      rows.emplace_back(distance, ChunkIdAt(change.document->first_chunk_id, i), change.document.get());
    }
  }
  std::sort(rows.begin(), rows.end());
  Hits hits;
  std::map<const IndexedDocument*, uint32_t> taken;
  for (const auto& [distance, chunk_id, document] : rows) {
    if (hits.size() == options.k) break;
    if (options.chunks_per_document_max > 0 && taken[document]++ >= options.chunks_per_document_max) continue;
    hits.emplace_back(distance, chunk_id);
  }
  return hits;
}

void IndexModel::Fill(SegmentedIndex& index) const {
  std::vector<IndexChange> missing;
  for (const auto& [id, change] : documents_) {
    if (!index.Restore(change.document)) missing.push_back(change);
  }
  index.Restored();
  std::sort(missing.begin(), missing.end(), [](const IndexChange& a, const IndexChange& b) {
    return a.document->first_chunk_id < b.document->first_chunk_id;
  });
  index.Apply(std::move(missing), MakePosition(1, next_chunk_));
  index.Filled();
}

uint64_t IndexModel::chunks() const {
  uint64_t chunks = 0;
  for (const auto& [id, change] : documents_) chunks += change.document->chunk_count;
  return chunks;
}

double Recall(const SegmentedIndex& index, const std::vector<std::vector<float>>& vectors, IndexSearchOptions options) {
  std::vector<IndexQuery> queries;
  queries.reserve(vectors.size());
  for (const auto& vector : vectors) queries.push_back({vector, {}});
  const auto found = index.Search(queries, options, CallContext());
  options.effort.reset();
  const auto exact = index.Search(queries, options, CallContext());
  EXPECT_TRUE(found.ok() && exact.ok());
  if (!found.ok() || !exact.ok()) return 0;
  uint64_t wanted = 0, got = 0;
  for (size_t q = 0; q < queries.size(); ++q) {
    EXPECT_EQ(found->hits[q].size(), exact->hits[q].size()) << "query " << q;
    if (exact->hits[q].empty()) continue;
    const float worst = exact->hits[q].back().distance;  // of equal distance any is right
    wanted += exact->hits[q].size();
    for (const IndexHit& hit : found->hits[q]) got += hit.distance <= worst ? 1 : 0;
  }
  return wanted == 0 ? 1 : static_cast<double>(got) / static_cast<double>(wanted);
}

}  // namespace retro
