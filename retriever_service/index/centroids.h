// Which lists of an inverted file a query looks into: those of the nearest centroids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "retriever_service/index/code_scan.h"

namespace retro {

// Centroids in the rows' code, by which all are compared, and in half precision, by which the nearest of these are.
// Any thread once made.
class Centroids {
 public:
  //   centroids  [count, dimension]
  //   blocks     their codes, as CodeList has them
  Centroids(std::span<const float> centroids, size_t dimension, std::vector<CodeQuad> blocks);

  // The numbers of the `most` nearest of each query, in no order; -1 fills up where there are fewer.
  //   queries  [n, dimension]
  //   tables   of the same queries
  //   nearest  [n, most]
  void FindNearest(std::span<const float> queries, const CodeTables& tables, size_t most,
                   std::span<int64_t> nearest) const;

  size_t count() const { return count_; }
  size_t memory_bytes() const { return halves_.size() + blocks_.size() * sizeof(CodeQuad); }

 private:
  std::string_view At(size_t centroid) const;

  const size_t dimension_, count_;
  const std::string halves_;
  const std::vector<CodeQuad> blocks_;
};

}  // namespace retro
