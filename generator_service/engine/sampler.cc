#include "generator_service/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/base/error.h"
#include "common/base/simd.h"
#include "common/base/status_macros.h"
#include "generator_service/engine/random.h"

namespace retro {
namespace {

using simd::Floats;
using simd::Ints;
using simd::kLanes;

// The vector at `from`, of which `count` are there, the others `fill`.
Floats LoadFilled(const float* from, size_t count, float fill) {
  if (count >= kLanes) return simd::Load(from);
  Floats values = simd::Splat(fill);
  std::memcpy(&values, from, count * sizeof(float));
  return values;
}

// NaN if one of them is.
float LargestOf(std::span<const float> values) {
  Floats largest = simd::Splat(-std::numeric_limits<float>::infinity());
  Ints not_numbers = {};
  for (size_t i = 0; i < values.size(); i += kLanes) {
    const Floats next = LoadFilled(values.data() + i, values.size() - i, -std::numeric_limits<float>::infinity());
    not_numbers |= next != next;
    largest = simd::Max(largest, next);
  }
  for (int i = 0; i < kLanes; ++i) {
    if (not_numbers[i] != 0) return std::numeric_limits<float>::quiet_NaN();
  }
  return simd::Largest(largest);
}

// weights[i] = e^((logits[i] - largest) / temperature), which are at most 1; returns their sum.
double Exponentials(std::span<const float> logits, float largest, float temperature, std::vector<float>& weights) {
  constexpr size_t kBlock = size_t{32} * kLanes;  // whose sum single precision holds well
  weights.resize((logits.size() + kLanes - 1) / kLanes * kLanes);
  double sum = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    Floats sums = {};
    for (size_t i = begin; i < std::min(begin + kBlock, logits.size()); i += kLanes) {
      const Floats from_largest = LoadFilled(logits.data() + i, logits.size() - i, largest) - largest;
      const Floats weight = simd::Exp(from_largest / temperature);
      simd::Store(weights.data() + i, weight);
      sums += weight;
    }
    sum += simd::Sum(sums);
  }
  const size_t filled = weights.size() - logits.size();  // each of them e^0
  weights.resize(logits.size());
  return sum - static_cast<double>(filled);
}

}  // namespace

Sampler::Sampler(int64_t vocabulary) {
  candidates_.reserve(static_cast<size_t>(vocabulary));
  logits_.reserve(static_cast<size_t>(vocabulary));
  weights_.reserve(static_cast<size_t>(vocabulary) + kLanes);
}

// Likelier first; the lower id where equal, so that the order is the same everywhere.
bool Sampler::Before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

void Sampler::TakeAll(std::span<const float> logits) {
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) candidates_[i] = {static_cast<TokenId>(i), logits[i]};
}

void Sampler::KeepBest(size_t count) {
  count = std::min(count, candidates_.size());
  const auto end = candidates_.begin() + static_cast<ptrdiff_t>(count);
  if (end != candidates_.end()) std::nth_element(candidates_.begin(), end, candidates_.end(), Before);
  candidates_.resize(count);
  std::sort(candidates_.begin(), candidates_.end(), Before);
}

// As TakeAll and KeepBest, but without a list of all: every scored token of a prompt comes here, and most stretches of
// a vocabulary have none that is among the best so far.
void Sampler::TakeBest(std::span<const float> logits, size_t count) {
  constexpr size_t kStretch = size_t{16} * kLanes;
  count = std::min(count, logits.size());
  candidates_.clear();  // a heap, whose front is the last of them
  for (size_t begin = 0; begin < logits.size(); begin += kStretch) {
    const auto stretch = logits.subspan(begin, std::min(kStretch, logits.size() - begin));
    if (candidates_.size() == count && LargestOf(stretch) <= candidates_.front().logit) continue;
    for (size_t i = begin; i < begin + stretch.size(); ++i) {
      if (candidates_.size() == count) {
        if (logits[i] <= candidates_.front().logit) continue;  // of equal ones the lower id stays
        std::pop_heap(candidates_.begin(), candidates_.end(), Before);
        candidates_.pop_back();
      }
      candidates_.push_back({static_cast<TokenId>(i), logits[i]});
      std::push_heap(candidates_.begin(), candidates_.end(), Before);
    }
  }
  std::sort_heap(candidates_.begin(), candidates_.end(), Before);
}

ScoredToken Sampler::Scored(std::span<const float> logits, double log_sum, TokenId id, int top_logprobs) {
  ScoredToken token{id, static_cast<float>(logits[static_cast<size_t>(id)] - log_sum), {}};
  if (top_logprobs <= 0) return token;
  if (top_logprobs == 1) {
    const auto best = std::ranges::find(logits, LargestOf(logits));  // of equal ones the lowest id
    token.top.push_back({static_cast<TokenId>(best - logits.begin()), static_cast<float>(*best - log_sum)});
    return token;
  }
  TakeBest(logits, static_cast<size_t>(top_logprobs));
  for (const Candidate& c : candidates_) token.top.push_back({c.id, static_cast<float>(c.logit - log_sum)});
  return token;
}

void Sampler::Adjust(const SamplingSettings& settings, const SeenTokens& seen) {
  if (settings.repetition_penalty != 1.0F) {
    for (const TokenId id : seen.ids()) {
      float& logit = candidates_[static_cast<size_t>(id)].logit;
      const float penalised = logit > 0 ? logit / settings.repetition_penalty : logit * settings.repetition_penalty;
      // A tiny penalty makes infinities, of which no softmax can be taken.
      logit = std::clamp(penalised, std::numeric_limits<float>::lowest(), std::numeric_limits<float>::max());
    }
  }
  for (const auto& [id, bias] : settings.logit_bias) candidates_[static_cast<size_t>(id)].logit += bias;
}

// log(sum(exp(logits))). INTERNAL for logits that no softmax can take.
absl::StatusOr<double> Sampler::LogSumExp(std::span<const float> logits) {
  const float largest = logits.empty() ? std::numeric_limits<float>::quiet_NaN() : LargestOf(logits);
  if (!std::isfinite(largest))
    return Error(absl::StatusCode::kInternal, Reason::kInternal,
                 "the model gave logits that are not finite numbers: did its training diverge?");
  return largest + std::log(Exponentials(logits, largest, 1.0F, weights_));
}

// weights_ = exp((logit - largest) / temperature) of each; returns their sum.
double Sampler::Weigh(float temperature) {
  logits_.resize(candidates_.size());
  for (size_t i = 0; i < logits_.size(); ++i) logits_[i] = candidates_[i].logit;
  return Exponentials(logits_, LargestOf(logits_), temperature, weights_);
}

// The nucleus: the fewest most likely candidates with `top_p` of the weight. Tokens of probability below (1 - top_p) /
// V together have less than 1 - top_p, so none of them is in it, and only the others need sorting.
void Sampler::KeepNucleus(const SamplingSettings& settings) {
  const double sum = Weigh(settings.temperature);
  const double least = (1.0 - settings.top_p) / static_cast<double>(candidates_.size()) * sum;
  size_t likely = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (weights_[i] >= least) candidates_[likely++] = candidates_[i];
  }
  candidates_.resize(likely);
  std::sort(candidates_.begin(), candidates_.end(), Before);
  Weigh(settings.temperature);
  double reached = 0;
  size_t count = 0;
  while (count < likely && reached < settings.top_p * sum) reached += weights_[count++];
  candidates_.resize(std::max<size_t>(count, 1));
}

// The total is summed up as it is gone through afterwards: else rounding might leave a remainder, which would belong to
// no candidate.
TokenId Sampler::Draw(float temperature, double uniform) {
  Weigh(temperature);
  double total = 0;
  for (const float weight : weights_) total += weight;
  const double target = uniform * total;  // below the total, as `uniform` is below 1
  double reached = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    reached += weights_[i];
    if (reached > target) return candidates_[i].id;
  }
  return candidates_.front().id;
}

absl::StatusOr<ScoredToken> Sampler::Sample(std::span<const float> logits, const SamplingSettings& settings,
                                            const SeenTokens& seen, uint64_t index) {
  RETRO_ASSIGN_OR_RETURN(const double log_sum, LogSumExp(logits));
  TakeAll(logits);
  Adjust(settings, seen);
  if (settings.temperature <= 0) {
    const Candidate best = *std::min_element(candidates_.begin(), candidates_.end(), Before);
    return Scored(logits, log_sum, best.id, settings.top_logprobs);
  }
  if (settings.top_k > 0) KeepBest(static_cast<size_t>(settings.top_k));
  if (settings.top_p < 1.0F) KeepNucleus(settings);
  const TokenId id = Draw(settings.temperature, UniformAt(settings.seed, index));
  return Scored(logits, log_sum, id, settings.top_logprobs);
}

absl::StatusOr<ScoredToken> Sampler::Score(std::span<const float> logits, TokenId id, int top_logprobs) {
  RETRO_ASSIGN_OR_RETURN(const double log_sum, LogSumExp(logits));
  return Scored(logits, log_sum, id, top_logprobs);
}

}  // namespace retro
