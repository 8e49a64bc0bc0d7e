#include "generator_service/model/numbers.h"

#include <array>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr std::array<std::pair<ModelNumbers, std::string_view>, 4> kNames = {{{ModelNumbers::kFp32, "fp32"},
                                                                              {ModelNumbers::kFp16, "fp16"},
                                                                              {ModelNumbers::kInt8, "int8"},
                                                                              {ModelNumbers::kBf16, "bf16"}}};

}  // namespace

std::string_view ModelNumbersName(ModelNumbers numbers) { return kNames[static_cast<size_t>(numbers)].second; }

std::vector<std::string> ModelNumbersNames() {
  std::vector<std::string> names;
  names.reserve(kNames.size());
  for (const auto& [numbers, name] : kNames) names.emplace_back(name);
  return names;
}

absl::StatusOr<ModelNumbers> ModelNumbersFromName(std::string_view name) {
  for (const auto& [numbers, known] : kNames) {
    if (known == name) return numbers;
  }
  return absl::InvalidArgumentError(
      StrCat("no number format '", std::string(name), "': it is one of ", absl::StrJoin(ModelNumbersNames(), ", ")));
}

ModelNumbers ServingNumbers(const std::string& device) {
  return device == "cpu" ? ModelNumbers::kFp16 : ModelNumbers::kBf16;
}

std::optional<MatrixFormat> PackedFormat(ModelNumbers numbers) {
  switch (numbers) {
    case ModelNumbers::kFp32:
      return MatrixFormat::kFp32;
    case ModelNumbers::kFp16:
      return MatrixFormat::kFp16;
    case ModelNumbers::kInt8:
      return MatrixFormat::kInt8;
    case ModelNumbers::kBf16:
      break;
  }
  return std::nullopt;
}

}  // namespace retro
