#include "generator_service/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "generator_service/engine/random.h"

namespace retro {
namespace {

// log(sum(exp(logits))). INTERNAL for logits that no softmax can take.
absl::StatusOr<double> LogSumExp(std::span<const float> logits) {
  float largest = -std::numeric_limits<float>::infinity();
  bool numbers = !logits.empty();
  for (const float logit : logits) {
    numbers = numbers && !std::isnan(logit);
    largest = std::max(largest, logit);
  }
  if (!numbers || !std::isfinite(largest))
    return Error(absl::StatusCode::kInternal, Reason::kInternal,
                 "the model gave logits that are not finite numbers: are its weights damaged? Try retro-model info");
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

}  // namespace

Sampler::Sampler(int64_t vocabulary) {
  candidates_.reserve(static_cast<size_t>(vocabulary));
  weights_.reserve(static_cast<size_t>(vocabulary));
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
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(count), candidates_.end(),
                    Before);
  candidates_.resize(count);
}

ScoredToken Sampler::Scored(std::span<const float> logits, double log_sum, TokenId id, int top_logprobs) {
  ScoredToken token{id, static_cast<float>(logits[static_cast<size_t>(id)] - log_sum), {}};
  if (top_logprobs <= 0) return token;
  TakeAll(logits);
  KeepBest(static_cast<size_t>(top_logprobs));
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

// weights_ = exp((logit - largest) / temperature) of each; returns their sum.
double Sampler::Weigh(float temperature) {
  float largest = -std::numeric_limits<float>::infinity();
  for (const Candidate& c : candidates_) largest = std::max(largest, c.logit);
  weights_.resize(candidates_.size());
  double sum = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    weights_[i] = std::exp((static_cast<double>(candidates_[i].logit) - largest) / temperature);
    sum += weights_[i];
  }
  return sum;
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

TokenId Sampler::Draw(float temperature, double uniform) {
  double left = uniform * Weigh(temperature);
  for (size_t i = 0; i < weights_.size(); ++i) {
    left -= weights_[i];
    if (left < 0) return candidates_[i].id;
  }
  // Rounding may leave a remainder; the last one that can be drawn takes it.
  for (size_t i = weights_.size(); i-- > 0;) {
    if (weights_[i] > 0) return candidates_[i].id;
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
