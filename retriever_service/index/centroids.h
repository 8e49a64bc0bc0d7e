// Which lists of an inverted file a query looks into: those of the nearest centroids, found by comparing all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace retro {

// Held in half precision: for one query what takes the time is reading them. Any thread once made.
class Centroids {
 public:
  // [count, dimension]
  Centroids(std::span<const float> centroids, size_t dimension);

  // The numbers of the `most` nearest of each query, in no order; -1 fills up where there are fewer.
  //   queries  [n, dimension]
  //   nearest  [n, most]
  void FindNearest(std::span<const float> queries, size_t most, std::span<int64_t> nearest) const;

  size_t count() const { return half_norms_.size(); }
  size_t memory_bytes() const { return halves_.size() + half_norms_.size() * sizeof(float); }

 private:
  std::string_view At(size_t centroid) const;
  void CompareOne(std::span<const float> query, std::span<float> distances) const;
  void CompareMany(std::span<const float> queries, std::span<float> distances) const;

  const size_t dimension_;
  std::string halves_;
  std::vector<float> half_norms_;  // |centroid|^2 / 2
};

}  // namespace retro
