// The k best of a stream of candidates, in an order that does not depend on the stream's: by distance, then by chunk
// id; optionally with no more than so many of one document. Exact: equal to sorting all candidates and taking the first
// that are allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "retriever_service/index/indexed_document.h"

namespace retro {

struct Candidate {
  float distance;
  uint64_t chunk_id;
  const std::shared_ptr<const IndexedDocument>* document;  // kept alive by whoever scans
};

class TopK {
 public:
  // `per_document_max` 0: no bound. Candidates farther than `max_distance` are never taken.
  TopK(size_t k, uint32_t per_document_max, float max_distance = std::numeric_limits<float>::infinity());

  // False if a candidate like this would be refused: ask before anything dear.
  bool Wants(float distance, uint64_t chunk_id) const;
  void Add(const Candidate& candidate);

  const std::vector<Candidate>& best() const { return best_; }  // in order

 private:
  const size_t k_;
  const uint32_t per_document_max_;
  const float max_distance_;
  std::vector<Candidate> best_;
};

}  // namespace retro
