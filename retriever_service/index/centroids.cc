#include "retriever_service/index/centroids.h"

#include <cblas.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "common/document/half.h"
#include "retriever_service/index/half_distance.h"

namespace retro {
namespace {

constexpr size_t kManyQueries = 20;       // from so many on a matrix product is faster, as FAISS finds too
constexpr size_t kCentroidsAtOnce = 256;  // made single precision while they are in the cache
constexpr size_t kGroup = 16;

// The places of the `most` smallest. Of as many groups as that, the largest of their minima is a bound
// that at least so many are within, and few more: nothing else is looked at.
class Smallest {
 public:
  void Find(std::span<const float> values, std::span<int64_t> places) {
    const size_t most = std::min(places.size(), values.size());
    std::fill(places.begin() + static_cast<std::ptrdiff_t>(most), places.end(), -1);
    // A group's members lie as far from each other as there are groups, so that those of many are compared at once.
    const size_t groups = (values.size() + kGroup - 1) / kGroup;
    minima_.assign(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(groups));
    for (size_t begin = groups; begin < values.size(); begin += groups) {
      const auto some = values.subspan(begin, std::min(groups, values.size() - begin));
      for (size_t i = 0; i < some.size(); ++i) minima_[i] = some[i] < minima_[i] ? some[i] : minima_[i];
    }
    const float bound = Bound(most);
    within_.clear();
    for (size_t group = 0; group < groups; ++group) {
      if (minima_[group] > bound) continue;
      for (size_t place = group; place < values.size(); place += groups) {
        if (values[place] <= bound) within_.emplace_back(values[place], place);
      }
    }
    std::nth_element(within_.begin(), within_.begin() + static_cast<std::ptrdiff_t>(most), within_.end());
    for (size_t i = 0; i < most; ++i) places[i] = within_[i].second;
  }

 private:
  float Bound(size_t most) {
    if (most == 0 || most > minima_.size()) return std::numeric_limits<float>::infinity();
    bounds_ = minima_;
    const auto bound = bounds_.begin() + static_cast<std::ptrdiff_t>(most) - 1;
    std::nth_element(bounds_.begin(), bound, bounds_.end());
    return *bound;
  }

  std::vector<float> minima_, bounds_;
  std::vector<std::pair<float, int64_t>> within_;
};

}  // namespace

Centroids::Centroids(std::span<const float> centroids, size_t dimension)
    : dimension_(dimension), halves_(ToHalf(centroids)), half_norms_(centroids.size() / dimension) {
  std::vector<float> centroid(dimension);
  for (size_t i = 0; i < count(); ++i) {
    FromHalf(At(i), centroid);
    half_norms_[i] = std::inner_product(centroid.begin(), centroid.end(), centroid.begin(), 0.0F) / 2;
  }
}

std::string_view Centroids::At(size_t centroid) const {
  const size_t bytes = dimension_ * kHalfBytes;
  return std::string_view(halves_).substr(centroid * bytes, bytes);
}

void Centroids::FindNearest(std::span<const float> queries, size_t most, std::span<int64_t> nearest) const {
  const size_t n = queries.size() / dimension_;
  std::vector<float> distances(n * count());
  if (n >= kManyQueries) {
    CompareMany(queries, distances);
  } else {
    for (size_t i = 0; i < n; ++i) {
      CompareOne(queries.subspan(i * dimension_, dimension_), std::span(distances).subspan(i * count(), count()));
    }
  }
  Smallest smallest;
  for (size_t i = 0; i < n; ++i) {
    smallest.Find(std::span(distances).subspan(i * count(), count()), nearest.subspan(i * most, most));
  }
}

void Centroids::CompareOne(std::span<const float> query, std::span<float> distances) const {
  for (size_t i = 0; i < count(); ++i) distances[i] = SquaredDistance(query, At(i));
}

// |q - c|^2 is ordered as |c|^2 / 2 - qc.
void Centroids::CompareMany(std::span<const float> queries, std::span<float> distances) const {
  const size_t n = queries.size() / dimension_;
  for (size_t i = 0; i < n; ++i) std::copy(half_norms_.begin(), half_norms_.end(), distances.data() + i * count());
  std::vector<float> some(std::min(count(), kCentroidsAtOnce) * dimension_);
  const size_t bytes = dimension_ * kHalfBytes;
  for (size_t begin = 0; begin < count(); begin += kCentroidsAtOnce) {
    const size_t size = std::min(kCentroidsAtOnce, count() - begin);
    FromHalf(std::string_view(halves_).substr(begin * bytes, size * bytes), std::span(some).first(size * dimension_));
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(n), static_cast<int>(size),
                static_cast<int>(dimension_), -1, queries.data(), static_cast<int>(dimension_), some.data(),
                static_cast<int>(dimension_), 1, distances.data() + begin, static_cast<int>(count()));
  }
}

}  // namespace retro
