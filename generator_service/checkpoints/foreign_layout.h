// How our weights lie in another program's checkpoint: what importer and exporter of a format share.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "generator_service/model/weight_table.h"

namespace retro {

// One weight of ours as a part of a foreign tensor, whose first dimension is [groups, parts, rows of ours / groups].
// Q, K and V one after the other: groups 1, parts 3; interleaved by head: groups = heads, parts 3.
struct ForeignWeight {
  std::string name;
  int64_t part = 0;
  int64_t parts = 1;
  int64_t groups = 1;
  bool transposed = false;  // a matrix that stands as [in, out]; has one part
  double offset = 0;        // ours = theirs + offset, for gains that are stored less 1
};

// Ours to theirs. INVALID_ARGUMENT for a weight that the format has no place for.
using ForeignPlace = std::function<absl::StatusOr<ForeignWeight>(const WeightSpec&)>;

// The foreign tensor's shape that our shape asks for.
std::vector<int64_t> ForeignShape(const WeightSpec& spec, const ForeignWeight& place);

// Ours from the foreign tensor, whose shape is right. A copy.
at::Tensor TakePart(const at::Tensor& foreign, const WeightSpec& spec, const ForeignWeight& place);

// The inverse: every foreign tensor from all of its parts, by the foreign names.
absl::StatusOr<std::map<std::string, at::Tensor>> ForeignTensors(const std::vector<WeightSpec>& table,
                                                                 const std::map<std::string, at::Tensor>& weights,
                                                                 const ForeignPlace& place);

}  // namespace retro
