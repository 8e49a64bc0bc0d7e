#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/foreign_formats.h"

namespace retro {

WeightName ParseWeightName(const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '.');
  WeightName parsed;
  parsed.in_encoder = parts[0] == "encoder";
  parsed.leaf = parts.back();
  if (parts.size() == 4 && absl::SimpleAtoi(parts[1], &parsed.layer)) parsed.block = parts[2];
  return parsed;
}

absl::Status NoPlaceFor(const WeightSpec& spec) {
  return absl::InvalidArgumentError(StrCat("the format has no place for '", spec.name, "'"));
}

}  // namespace retro
