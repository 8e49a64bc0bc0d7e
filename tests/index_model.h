// An index's oracle: a plain list of what it should hold, compared one by one, and random changes to both.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "retriever_service/index/segmented_index.h"

namespace retro {

// Distance and chunk id of each hit.
using Hits = std::vector<std::pair<float, uint64_t>>;
Hits Flatten(const std::vector<IndexHit>& hits);

// True for documents whose "group", 0 ... 999, is below the bound.
CompiledFilter GroupBelow(int bound);
// Of all kinds, nested, about the fields that the model's documents have; some match nothing, some everything.
pb::Filter RandomFilterMessage(std::mt19937& random);
CompiledFilter RandomFilter(std::mt19937& random);

class IndexModel {
 public:
  IndexModel(int dimension, uint32_t seed) : dimension_(dimension), random_(seed) {}

  // Whole numbers of a small range: distances are exact in any order of adding, and many are equal.
  std::vector<float> RandomVector();
  // About one of `clusters` fixed points; exact in half precision. Queries and stored vectors alike.
  std::vector<float> ClusteredVector(uint32_t clusters);

  // These change the model and return the change for the index. `clusters` 0: RandomVector.
  IndexChange Put(const std::string& id, uint32_t chunks, uint32_t clusters = 0);
  IndexChange PutMetadata(const std::string& id);  // another document with the same vectors
  IndexChange Remove(const std::string& id);
  // Random changes of all kinds to `ids` documents.
  std::vector<IndexChange> Churn(int changes, uint32_t ids, uint32_t clusters = 0, bool of_metadata = true);

  Hits BruteForce(const IndexQuery& query, const IndexSearchOptions& options) const;
  // As a store would: documents that the index does not find in its segments come with their vectors.
  void Fill(SegmentedIndex& index) const;

  // Ids of the documents for which it is true, looked at one by one.
  std::vector<std::string> Matching(const CompiledFilter& filter) const;

  std::mt19937& random() { return random_; }
  const std::map<std::string, IndexChange>& documents() const { return documents_; }
  uint64_t chunks() const;

 private:
  // Source and metadata of every kind, of few distinct values: some with none, some with several.
  void GiveFacts(IndexedDocument& document);

  const int dimension_;
  std::mt19937 random_;
  uint64_t next_chunk_ = 1;
  std::map<std::string, IndexChange> documents_;
};

// Of the exact hits of all queries, the share that is found; as many must be found as there are.
double Recall(const SegmentedIndex& index, const std::vector<std::vector<float>>& vectors, IndexSearchOptions options);

}  // namespace retro
