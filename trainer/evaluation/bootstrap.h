// Intervals by resampling documents, or families of them (Efron 1979), for ratios of sums such as bits per byte.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace retro {

// What one document adds to a ratio's two sums.
struct RatioTerm {
  double numerator = 0;
  double denominator = 0;
  // Terms of one family, versions of one text, are drawn together. Empty: of none.
  std::string_view family = "";
};

struct Interval {
  double value = 0;  // sum of numerators / sum of denominators
  double low = 0;    // 2.5 % and 97.5 % of the resamples
  double high = 0;
};

// All zeros if the denominators add up to none. A function of its arguments alone; terms of equal families and seed
// are drawn alike, so that intervals of the same documents are paired.
Interval BootstrapRatio(std::span<const RatioTerm> documents, uint64_t seed, int64_t resamples = 2000);

}  // namespace retro
