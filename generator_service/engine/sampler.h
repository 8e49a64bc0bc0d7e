// From the logits of one position to the next token.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tokenizer/tokenizer.h"

namespace retro {

struct SamplingSettings {
  float temperature = 0.7F;         // 0: the most likely token, the lowest id where several are
  int top_k = 0;                    // 0: all
  float top_p = 0.95F;              // in (0, 1]
  float repetition_penalty = 1.0F;  // > 0; logits of tokens that occurred are divided (if positive) or multiplied by it
  uint64_t seed = 0;
  std::vector<std::pair<TokenId, float>> logit_bias;  // by token, each id once, within the vocabulary
  int top_logprobs = 0;                               // how many of the most likely tokens to tell
};

struct TokenLogprob {
  TokenId id = 0;
  float logprob = 0;
};

// A token with the model's own log-probabilities: of the plain softmax, before penalty, bias, temperature and filters.
struct ScoredToken {
  TokenId id = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;  // most likely first; of equal ones the lower id first
};

// Tokens that occurred in one sequence, for the repetition penalty.
class SeenTokens {
 public:
  explicit SeenTokens(int64_t vocabulary) : seen_(static_cast<size_t>(vocabulary)) {}
  // Ids within the vocabulary.
  void Add(TokenId id) {
    if (!seen_[static_cast<size_t>(id)]) ids_.push_back(id);
    seen_[static_cast<size_t>(id)] = true;
  }
  const std::vector<TokenId>& ids() const { return ids_; }

 private:
  std::vector<bool> seen_;
  std::vector<TokenId> ids_;  // each once
};

// Works in buffers of its own, made once: sampling a token takes no memory of the vocabulary's size. A thread at a
// time.
class Sampler {
 public:
  explicit Sampler(int64_t vocabulary);

  // Chooses the token at place `index` of a sequence; equal arguments give an equal choice on every machine of one
  // floating-point behaviour. In order: penalty, bias, temperature, top_k, top_p. INTERNAL if a logit is not a number.
  absl::StatusOr<ScoredToken> Sample(std::span<const float> logits, const SamplingSettings& settings,
                                     const SeenTokens& seen, uint64_t index);

  // The given token with its log-probability, and the `top_logprobs` most likely ones. Errors as Sample.
  absl::StatusOr<ScoredToken> Score(std::span<const float> logits, TokenId id, int top_logprobs);

 private:
  struct Candidate {
    TokenId id;
    float logit;
  };

  static bool Before(const Candidate& a, const Candidate& b);
  absl::StatusOr<double> LogSumExp(std::span<const float> logits);
  void TakeAll(std::span<const float> logits);
  void TakeBest(std::span<const float> logits, size_t count);
  void Adjust(const SamplingSettings& settings, const SeenTokens& seen);
  void KeepBest(size_t count);
  void KeepNucleus(const SamplingSettings& settings);
  double Weigh(float temperature);
  TokenId Draw(float temperature, double uniform);
  ScoredToken Scored(std::span<const float> logits, double log_sum, TokenId id, int top_logprobs);

  std::vector<Candidate> candidates_;
  std::vector<float> logits_;   // of the candidates
  std::vector<float> weights_;  // of the candidates, or of all
};

}  // namespace retro
