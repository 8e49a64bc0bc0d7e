#include "generator_service/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "generator_service/engine/random.h"

namespace retro {
namespace {

struct Candidate {
  TokenId id;
  float logit;
};

// Likelier first; the lower id where equal, so that the order is the same everywhere.
bool Before(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

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

std::vector<Candidate> AllCandidates(std::span<const float> logits) {
  std::vector<Candidate> candidates(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) candidates[i] = {static_cast<TokenId>(i), logits[i]};
  return candidates;
}

void KeepBest(std::vector<Candidate>& candidates, size_t count) {
  count = std::min(count, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(count), candidates.end(), Before);
  candidates.resize(count);
}

ScoredToken Scored(std::span<const float> logits, double log_sum, TokenId id, int top_logprobs) {
  ScoredToken token{id, static_cast<float>(logits[static_cast<size_t>(id)] - log_sum), {}};
  if (top_logprobs <= 0) return token;
  std::vector<Candidate> best = AllCandidates(logits);
  KeepBest(best, static_cast<size_t>(top_logprobs));
  for (const Candidate& c : best) token.top.push_back({c.id, static_cast<float>(c.logit - log_sum)});
  return token;
}

std::vector<Candidate> Adjusted(std::span<const float> logits, const SamplingSettings& settings,
                                const SeenTokens& seen) {
  std::vector<Candidate> candidates = AllCandidates(logits);
  if (settings.repetition_penalty != 1.0F) {
    for (const TokenId id : seen.ids()) {
      float& logit = candidates[static_cast<size_t>(id)].logit;
      const float penalised = logit > 0 ? logit / settings.repetition_penalty : logit * settings.repetition_penalty;
      // A tiny penalty makes infinities, of which no softmax can be taken.
      logit = std::clamp(penalised, std::numeric_limits<float>::lowest(), std::numeric_limits<float>::max());
    }
  }
  for (const auto& [id, bias] : settings.logit_bias) candidates[static_cast<size_t>(id)].logit += bias;
  return candidates;
}

// exp((logit - largest) / temperature) of each.
std::vector<double> Weights(const std::vector<Candidate>& candidates, float temperature) {
  float largest = -std::numeric_limits<float>::infinity();
  for (const Candidate& c : candidates) largest = std::max(largest, c.logit);
  std::vector<double> weights(candidates.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = std::exp((static_cast<double>(candidates[i].logit) - largest) / temperature);
  }
  return weights;
}

double Sum(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

// The nucleus: the fewest most likely candidates with `top_p` of the weight. Tokens of probability below (1 - top_p) /
// V together have less than 1 - top_p, so none of them is in it, and only the others need sorting.
void KeepNucleus(std::vector<Candidate>& candidates, const SamplingSettings& settings) {
  const std::vector<double> weights = Weights(candidates, settings.temperature);
  const double sum = Sum(weights);
  const double least = (1.0 - settings.top_p) / static_cast<double>(candidates.size()) * sum;
  std::vector<Candidate> likely;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (weights[i] >= least) likely.push_back(candidates[i]);
  }
  std::sort(likely.begin(), likely.end(), Before);
  const std::vector<double> sorted = Weights(likely, settings.temperature);
  double reached = 0;
  size_t count = 0;
  while (count < likely.size() && reached < settings.top_p * sum) reached += sorted[count++];
  likely.resize(std::max<size_t>(count, 1));
  candidates = std::move(likely);
}

TokenId Draw(const std::vector<Candidate>& candidates, float temperature, double uniform) {
  const std::vector<double> weights = Weights(candidates, temperature);
  double left = uniform * Sum(weights);
  for (size_t i = 0; i < weights.size(); ++i) {
    left -= weights[i];
    if (left < 0) return candidates[i].id;
  }
  // Rounding may leave a remainder; the last one that can be drawn takes it.
  for (size_t i = weights.size(); i-- > 0;) {
    if (weights[i] > 0) return candidates[i].id;
  }
  return candidates.front().id;
}

}  // namespace

absl::StatusOr<ScoredToken> SampleToken(std::span<const float> logits, const SamplingSettings& settings,
                                        const SeenTokens& seen, uint64_t index) {
  RETRO_ASSIGN_OR_RETURN(const double log_sum, LogSumExp(logits));
  std::vector<Candidate> candidates = Adjusted(logits, settings, seen);
  if (settings.temperature <= 0) {
    const Candidate best = *std::min_element(candidates.begin(), candidates.end(), Before);
    return Scored(logits, log_sum, best.id, settings.top_logprobs);
  }
  if (settings.top_k > 0) KeepBest(candidates, static_cast<size_t>(settings.top_k));
  if (settings.top_p < 1.0F) KeepNucleus(candidates, settings);
  const TokenId id = Draw(candidates, settings.temperature, UniformAt(settings.seed, index));
  return Scored(logits, log_sum, id, settings.top_logprobs);
}

absl::StatusOr<ScoredToken> ScoreToken(std::span<const float> logits, TokenId id, int top_logprobs) {
  RETRO_ASSIGN_OR_RETURN(const double log_sum, LogSumExp(logits));
  return Scored(logits, log_sum, id, top_logprobs);
}

}  // namespace retro
