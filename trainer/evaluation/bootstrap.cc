#include "trainer/evaluation/bootstrap.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "trainer/window_sampler.h"

namespace retro {
namespace {

double Ratio(const RatioTerm& sums) { return sums.denominator == 0 ? 0 : sums.numerator / sums.denominator; }

void Add(RatioTerm& sums, const RatioTerm& term) {
  sums.numerator += term.numerator;
  sums.denominator += term.denominator;
}

// One term a family, in the order of its first.
std::vector<RatioTerm> SumFamilies(std::span<const RatioTerm> terms) {
  std::vector<RatioTerm> sums;
  std::unordered_map<std::string_view, size_t> places;
  for (const RatioTerm& term : terms) {
    const bool is_new = term.family.empty() || places.try_emplace(term.family, sums.size()).second;
    Add(is_new ? sums.emplace_back() : sums[places.at(term.family)], term);
  }
  return sums;
}

}  // namespace

Interval BootstrapRatio(std::span<const RatioTerm> documents, uint64_t seed, int64_t resamples) {
  const std::vector<RatioTerm> terms = SumFamilies(documents);
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
