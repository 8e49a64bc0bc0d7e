#include "retriever_service/index/top_k.h"

#include <algorithm>
#include <tuple>

namespace retro {
namespace {

bool IsBetter(const Candidate& a, const Candidate& b) {
  return std::tie(a.distance, a.chunk_id) < std::tie(b.distance, b.chunk_id);
}

}  // namespace

TopK::TopK(size_t k, uint32_t per_document_max, float max_distance)
    : k_(k), per_document_max_(per_document_max), max_distance_(max_distance) {}

bool TopK::Wants(float distance, uint64_t chunk_id) const {
  if (!(distance <= max_distance_)) return false;
  return best_.size() < k_ || IsBetter({distance, chunk_id, nullptr}, best_.back());
}

// A candidate that is pushed out by better ones of its document, or by k better ones, can never come back: what pushed
// it out only gives way to what is better still.
void TopK::Add(const Candidate& candidate) {
  if (!Wants(candidate.distance, candidate.chunk_id)) return;
  if (per_document_max_ > 0) {
    uint32_t same = 0;
    auto worst = best_.end();
    for (auto it = best_.begin(); it != best_.end(); ++it) {
      if (it->document->get() != candidate.document->get()) continue;
      ++same;
      worst = it;
    }
    if (same >= per_document_max_) {
      if (!IsBetter(candidate, *worst)) return;
      best_.erase(worst);
    }
  }
  best_.insert(std::upper_bound(best_.begin(), best_.end(), candidate, IsBetter), candidate);
  if (best_.size() > k_) best_.pop_back();
}

}  // namespace retro
