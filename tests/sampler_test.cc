#include "generator_service/engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "generator_service/engine/random.h"

namespace retro {
namespace {

const std::vector<float> kLogits = {1.0F, 3.0F, 2.0F, 3.0F, -1.0F};

double LogSoftmax(const std::vector<float>& logits, size_t i) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit);
  return logits[i] - std::log(sum);
}

std::map<TokenId, int> Draws(const SamplingSettings& settings, const SeenTokens& seen, int count) {
  std::map<TokenId, int> counts;
  for (int i = 0; i < count; ++i) {
    const auto token = Sampler(5).Sample(kLogits, settings, seen, static_cast<uint64_t>(i));
    EXPECT_TRUE(token.ok());
    ++counts[token->id];
  }
  return counts;
}

std::set<TokenId> Drawn(const SamplingSettings& settings) {
  std::set<TokenId> ids;
  for (const auto& [id, count] : Draws(settings, SeenTokens(5), 4000)) ids.insert(id);
  return ids;
}

SamplingSettings Plain() {
  SamplingSettings settings;
  settings.temperature = 1;
  settings.top_p = 1;
  settings.seed = 17;
  return settings;
}

// Vectors of Random123, the authors' own implementation.
TEST(RandomTest, PhiloxGivesTheKnownAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              testing::ElementsAre(0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U));
  EXPECT_THAT(Philox4x32({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}),
              testing::ElementsAre(0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU));
}

TEST(RandomTest, UniformDependsOnSeedAndIndexAlone) {
  EXPECT_EQ(UniformAt(3, 5), UniformAt(3, 5));
  EXPECT_NE(UniformAt(3, 5), UniformAt(3, 6));
  EXPECT_NE(UniformAt(3, 5), UniformAt(4, 5));
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) sum += UniformAt(1, i);
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

TEST(SamplerTest, GreedyTakesTheLowestOfEqualIds) {
  SamplingSettings settings;
  settings.temperature = 0;
  const auto token = Sampler(5).Sample(kLogits, settings, SeenTokens(5), 0);
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(token->id, 1);
}

TEST(SamplerTest, LogprobIsTheModelsOwnWhateverTheSettings) {
  SamplingSettings settings = Plain();
  settings.temperature = 0.3F;
  settings.top_k = 1;
  settings.logit_bias = {{2, 50.0F}};
  settings.top_logprobs = 3;
  SeenTokens seen(5);
  seen.Add(3);
  settings.repetition_penalty = 2;
  const auto token = Sampler(5).Sample(kLogits, settings, seen, 0);
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(token->id, 2);
  EXPECT_NEAR(token->logprob, LogSoftmax(kLogits, 2), 1e-6);
  ASSERT_EQ(token->top.size(), 3U);
  EXPECT_EQ(token->top[0].id, 1);
  EXPECT_EQ(token->top[1].id, 3);
  EXPECT_EQ(token->top[2].id, 2);
  EXPECT_NEAR(token->top[0].logprob, LogSoftmax(kLogits, 1), 1e-6);
}

TEST(SamplerTest, FrequenciesFollowTheSoftmaxAtTheTemperature) {
  SamplingSettings settings = Plain();
  settings.temperature = 2;
  const int count = 20000;
  const auto draws = Draws(settings, SeenTokens(5), count);
  std::vector<float> cooled;
  cooled.reserve(kLogits.size());
  for (const float logit : kLogits) cooled.push_back(logit / 2);
  for (size_t i = 0; i < kLogits.size(); ++i) {
    EXPECT_NEAR(draws.at(static_cast<TokenId>(i)) / static_cast<double>(count), std::exp(LogSoftmax(cooled, i)), 0.015);
  }
}

TEST(SamplerTest, TopKKeepsTheBestWithTiesByTheLowerId) {
  SamplingSettings settings = Plain();
  settings.top_k = 1;
  EXPECT_THAT(Drawn(settings), testing::ElementsAre(1));
  settings.top_k = 3;
  EXPECT_THAT(Drawn(settings), testing::ElementsAre(1, 2, 3));
}

TEST(SamplerTest, TopPKeepsTheFewestThatReachIt) {
  // Probabilities 0.050, 0.390, 0.143, 0.390, 0.007 (about): 0.39 is enough for 0.3, two for 0.7, three for 0.9.
  SamplingSettings settings = Plain();
  settings.top_p = 0.3F;
  EXPECT_THAT(Drawn(settings), testing::ElementsAre(1));
  settings.top_p = 0.7F;
  EXPECT_THAT(Drawn(settings), testing::ElementsAre(1, 3));
  settings.top_p = 0.9F;
  EXPECT_THAT(Drawn(settings), testing::ElementsAre(1, 2, 3));
  settings.top_p = 1e-6F;
  EXPECT_THAT(Drawn(settings), testing::ElementsAre(1));
}

TEST(SamplerTest, TopPIsOfWhatTopKLeft) {
  SamplingSettings settings = Plain();
  settings.top_k = 3;
  settings.top_p = 0.8F;  // of 1, 3, 2: 0.42, 0.42, 0.155
  EXPECT_THAT(Drawn(settings), testing::ElementsAre(1, 3));
}

TEST(SamplerTest, PenaltyDividesPositiveAndMultipliesNegativeLogits) {
  SamplingSettings settings;
  settings.temperature = 0;
  settings.repetition_penalty = 4;
  SeenTokens seen(5);
  seen.Add(1);
  seen.Add(1);  // once is enough: 3 / 4 = 0.75, not 3 / 16
  seen.Add(3);
  seen.Add(4);
  EXPECT_EQ(Sampler(5).Sample(kLogits, settings, seen, 0)->id, 2);
  const std::vector<float> negative = {-1.0F, -2.0F};
  SeenTokens first(2);
  first.Add(0);
  EXPECT_EQ(Sampler(5).Sample(negative, settings, first, 0)->id, 1);
}

TEST(SamplerTest, ATinyPenaltyIsNoInfinity) {
  SamplingSettings settings;  // the defaults, with their top_p
  settings.repetition_penalty = 1e-39F;
  SeenTokens seen(5);
  seen.Add(1);
  EXPECT_EQ(Sampler(5).Sample(kLogits, settings, seen, 0)->id, 1);
}

// Rounding makes a sum in single precision too large by more than is left above this uniform number.
TEST(SamplerTest, RoundingGivesNothingToATokenThatIsNextToImpossible) {
  constexpr uint64_t kPlace = 1'217'933;
  ASSERT_GT(UniformAt(Plain().seed, kPlace), 1 - 1e-7);
  std::vector<float> logits(1024, -16.23F);  // 3/4 of a float's last place at 1
  logits.front() = 0;
  logits.back() = -80;
  const auto token = Sampler(1024).Sample(logits, Plain(), SeenTokens(1024), kPlace);
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ(token->id, 1022);
}

TEST(SamplerTest, TheSameSeedAndPlaceGiveTheSameToken) {
  const SamplingSettings settings = Plain();
  for (uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(Sampler(5).Sample(kLogits, settings, SeenTokens(5), i)->id,
              Sampler(5).Sample(kLogits, settings, SeenTokens(5), i)->id);
  }
}

TEST(SamplerTest, ScoreGivesTheTokensOwnLogprob) {
  const auto token = Sampler(5).Score(kLogits, 4, 1);
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(token->id, 4);
  EXPECT_NEAR(token->logprob, LogSoftmax(kLogits, 4), 1e-6);
  ASSERT_EQ(token->top.size(), 1U);
  EXPECT_EQ(token->top[0].id, 1);
}

// In stretches of a vocabulary that rises, falls, is all one or has no order, with equal logits in each.
TEST(SamplerTest, TheMostLikelyAreThoseThatASortPutsFirst) {
  constexpr size_t kVocabulary = 1003;
  std::vector<std::vector<float>> all(4, std::vector<float>(kVocabulary, 1.5F));
  for (size_t i = 0; i < kVocabulary; ++i) {
    const size_t step = i / 3;
    all[0][i] = static_cast<float>(step);
    all[1][i] = -static_cast<float>(step);
    all[2][i] = static_cast<float>(i * 7919 % 101);
  }
  Sampler sampler(kVocabulary);
  for (const std::vector<float>& logits : all) {
    std::vector<TokenId> sorted(kVocabulary);
    std::iota(sorted.begin(), sorted.end(), 0);
    std::ranges::sort(sorted, {}, [&](TokenId id) { return std::pair(-logits[static_cast<size_t>(id)], id); });
    for (const int count : {2, 20, 1003, 2000}) {
      const auto token = sampler.Score(logits, 0, count);
      ASSERT_TRUE(token.ok()) << token.status();
      std::vector<TokenId> ids;
      for (const TokenLogprob& one : token->top) ids.push_back(one.id);
      const auto expected = std::min(kVocabulary, static_cast<size_t>(count));
      EXPECT_EQ(ids, std::vector<TokenId>(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(expected)));
      EXPECT_EQ(token->top.front().logprob, sampler.Score(logits, sorted[0], 0)->logprob);
    }
  }
}

TEST(SamplerTest, LogitsThatAreNoNumbersAreAnError) {
  std::vector<float> logits = kLogits;
  logits[2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Sampler(5).Sample(logits, Plain(), SeenTokens(5), 0).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Sampler(5).Score(logits, 0, 0).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace retro
