#include "trainer/evaluation/bootstrap.h"

#include <algorithm>
#include <vector>

#include "trainer/window_sampler.h"

namespace retro {
namespace {

double Ratio(const RatioTerm& sums) { return sums.denominator == 0 ? 0 : sums.numerator / sums.denominator; }

void Add(RatioTerm& sums, const RatioTerm& term) {
  sums.numerator += term.numerator;
  sums.denominator += term.denominator;
}

}  // namespace

Interval BootstrapRatio(std::span<const RatioTerm> terms, uint64_t seed, int64_t resamples) {
  RatioTerm all;
  for (const RatioTerm& term : terms) Add(all, term);
  if (all.denominator == 0) return {};
  std::vector<double> ratios;
  ratios.reserve(resamples);
  for (int64_t r = 0; r < resamples; ++r) {
    RatioTerm drawn;
    for (size_t i = 0; i < terms.size(); ++i) {
      Add(drawn, terms[MixedBits(seed, static_cast<uint64_t>(r) * terms.size() + i) % terms.size()]);
    }
    if (drawn.denominator != 0) ratios.push_back(Ratio(drawn));  // a resample may draw documents without any bytes
  }
  if (ratios.empty()) return {.value = Ratio(all), .low = Ratio(all), .high = Ratio(all)};
  std::ranges::sort(ratios);
  const auto at = [&](double share) {
    return ratios[static_cast<size_t>(share * static_cast<double>(ratios.size() - 1))];
  };
  return {.value = Ratio(all), .low = at(0.025), .high = at(0.975)};
}

}  // namespace retro
