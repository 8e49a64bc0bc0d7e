#include "tests/index_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

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
  document->metadata = {{"group", {static_cast<int64_t>(random_() % 1000)}}};
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
  document->metadata = {{"group", {static_cast<int64_t>(random_() % 1000)}}};
  documents_[id].document = document;
  return {id, document, {}};
}

IndexChange IndexModel::Remove(const std::string& id) {
  documents_.erase(id);
  return {id, nullptr, {}};
}

std::vector<IndexChange> IndexModel::Churn(int changes, uint32_t ids, uint32_t clusters) {
  std::vector<IndexChange> made;
  while (changes-- > 0) {
    const std::string id = StrCat("doc", random_() % ids);
    const bool known = documents_.contains(id);
    switch (random_() % 4) {
      case 0:
        if (known) made.push_back(Remove(id));
        break;
      case 1:
        if (known) made.push_back(PutMetadata(id));
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
