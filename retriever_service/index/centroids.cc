#include "retriever_service/index/centroids.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "common/document/half.h"
#include "retriever_service/index/half_distance.h"

namespace retro {
namespace {

// By their codes so many times as many are found as are wanted, and some more where few are.
constexpr size_t kCandidates = 2, kCandidatesMore = 16;

}  // namespace

Centroids::Centroids(std::span<const float> centroids, size_t dimension, std::vector<CodeQuad> blocks)
    : dimension_(dimension),
      count_(centroids.size() / dimension),
      halves_(ToHalf(centroids)),
      blocks_(std::move(blocks)) {}

std::string_view Centroids::At(size_t centroid) const {
  const size_t bytes = dimension_ * kHalfBytes;
  return std::string_view(halves_).substr(centroid * bytes, bytes);
}

void Centroids::FindNearest(std::span<const float> queries, const CodeTables& tables, size_t most,
                            std::span<int64_t> nearest) const {
  const size_t wanted = std::min(most, count_);
  std::fill(nearest.begin(), nearest.end(), -1);
  if (wanted == 0) return;
  std::vector<int64_t> candidates(std::min(count_, kCandidates * wanted + kCandidatesMore));
  std::optional<CodeScan> scan;
  if (candidates.size() < count_) {
    const CodeList all{blocks_.data()->bytes.data(), static_cast<uint32_t>(count_), 0};
    std::vector<uint32_t> every(tables.queries());
    std::iota(every.begin(), every.end(), 0);
    scan.emplace(tables, candidates.size());
    scan->Scan(all, every, all);
  } else {
    std::iota(candidates.begin(), candidates.end(), 0);
  }
  std::vector<std::pair<float, int64_t>> compared(candidates.size());
  for (size_t query = 0; query < tables.queries(); ++query) {
    if (scan.has_value()) scan->Take(query, candidates);
    for (size_t i = 0; i < candidates.size(); ++i) {
      compared[i] = {SquaredDistance(queries.subspan(query * dimension_, dimension_), At(candidates[i])),
                     candidates[i]};
    }
    std::nth_element(compared.begin(), compared.begin() + static_cast<std::ptrdiff_t>(wanted) - 1, compared.end());
    for (size_t i = 0; i < wanted; ++i) nearest[query * most + i] = compared[i].second;
  }
}

}  // namespace retro
