#include "retriever_service/index/tuning.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>

#include "common/base/strings.h"

namespace retro {
namespace {

// A list costs its centroid, 0.9 KB, and on average half a block of codes that is empty, 1.5 KB, and a comparison for
// every query.
constexpr uint64_t kRowsAListMin = 192;
constexpr uint64_t kSampleAList = 64;
constexpr uint64_t kSampleRowsMin = 4096;  // 256 for each of the 16 values of a code: FAISS learns from no more
// Up to so many lists the nearest are found by comparing the codes of all centroids; beyond, by a graph over them.
constexpr uint64_t kFlatListsMax = 8192;
constexpr char kListsPrefix[] = "IVF";

uint64_t ChooseLists(uint64_t rows) {
  const double wished = std::max(1.0, 4 * std::sqrt(static_cast<double>(rows)));
  const auto nearest = uint64_t{1} << static_cast<int>(std::lround(std::log2(wished)));
  return std::min(nearest, std::bit_floor(std::max<uint64_t>(1, rows / kRowsAListMin)));
}

// Codes a vector: as near to one for `coordinates` as the dimension divides.
int ChooseCodes(int dimension, int coordinates) {
  for (int each = coordinates; each > 1; --each) {
    if (dimension % each == 0) return dimension / each;
  }
  return dimension;
}

}  // namespace

std::string ChooseKind(SegmentKind kind, int dimension, uint64_t rows) {
  if (kind == SegmentKind::kExact || rows < kQuantisedRowsMin) return "";
  const uint64_t lists = ChooseLists(rows);
  const std::string inverted = StrCat(kListsPrefix, lists, lists > kFlatListsMax ? "_HNSW32" : "");
  if (kind == SegmentKind::kSq8) return StrCat(inverted, ",SQ8");
  return StrCat(inverted, ",PQ", ChooseCodes(dimension, rows <= kWideCodeRowsMax ? 2 : 4), "x4fs");
}

uint32_t ListsOfKind(const std::string& kind) {
  if (!kind.starts_with(kListsPrefix)) return 0;
  return static_cast<uint32_t>(std::strtoul(kind.c_str() + sizeof kListsPrefix - 1, nullptr, 10));
}

uint64_t SampleRows(uint64_t rows, const std::string& kind) {
  return std::min(rows, std::max(kSampleAList * ListsOfKind(kind), kSampleRowsMin));
}

Probe ChooseProbe(double effort, uint32_t lists, uint32_t k, double share) {
  constexpr double kHalvings = 9;
  constexpr double kCandidatesLeast = 5, kCandidatesGrowth = 8;
  constexpr double kListsAtFullEffort = 16;  // of few lists the nearest ones hold less of what is near
  constexpr uint32_t kResultsMin = 10;
  constexpr double kCandidatesShareLeast = 0.25;  // as all that is looked for may have been written at one time
  const double lists_share = std::exp2(-kHalvings * (1 - effort));
  const double each = kCandidatesLeast * std::pow(kCandidatesGrowth, effort);
  const auto looked_at = static_cast<uint32_t>(std::lround(std::max(lists * lists_share, kListsAtFullEffort * effort)));
  const double here = std::max(kCandidatesShareLeast, std::sqrt(share));
  return {std::clamp(looked_at, uint32_t{1}, std::max(uint32_t{1}, lists)),
          std::max(k, static_cast<uint32_t>(std::ceil(std::max(k, kResultsMin) * each * here)))};
}

}  // namespace retro
