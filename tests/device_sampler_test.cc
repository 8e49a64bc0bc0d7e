// The device's sampler chooses what the host's does. Rounding differs at the borders between two tokens alone, which
// these draws, whose seeds are fixed, do not meet.
#include "generator_service/engine/device_sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <limits>
#include <random>
#include <vector>

#include "common/torch/device.h"
#include "generator_service/engine/random.h"
#include "generator_service/engine/sampler.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

constexpr int64_t kVocabulary = 97;

at::Device Device() { return *OpenDevice(TestDevice()); }

struct Row {
  SamplingSettings settings;
  SeenTokens seen{kVocabulary};
  uint64_t index = 0;
  std::vector<float> logits;
};

Row RandomRow(std::mt19937& random) {
  Row row;
  // Few values, so that equal ones are common.
  for (int64_t i = 0; i < kVocabulary; ++i) {
    row.logits.push_back(static_cast<float>(static_cast<int>(random() % 41) - 20) / 4.0F);
  }
  SamplingSettings& settings = row.settings;
  settings.temperature = random() % 4 == 0 ? 0.0F : 0.2F + static_cast<float>(random() % 20) / 10.0F;
  settings.top_k = random() % 2 == 0 ? 0 : static_cast<int>(1 + random() % 120);
  settings.top_p = random() % 2 == 0 ? 1.0F : static_cast<float>(1 + random() % 99) / 100.0F;
  settings.repetition_penalty = random() % 2 == 0 ? 1.0F : 0.5F + static_cast<float>(random() % 20) / 10.0F;
  settings.seed = random();
  row.index = random() % 1000;
  for (int i = 0; i < 20; ++i) row.seen.Add(static_cast<TokenId>(random() % kVocabulary));
  if (random() % 3 == 0) settings.logit_bias = {{static_cast<TokenId>(random() % kVocabulary), 3.5F}};
  return row;
}

at::Tensor OfRows(const std::vector<Row>& rows, const auto& value) {
  std::vector<double> values;
  values.reserve(rows.size());
  for (const Row& row : rows) values.push_back(static_cast<double>(value(row)));
  return at::tensor(values, at::kDouble).to(Device());
}

RowSampling SamplingOf(const std::vector<Row>& rows) {
  const auto count = static_cast<int64_t>(rows.size());
  at::Tensor seen = at::zeros({count, kVocabulary}, at::kBool);
  at::Tensor bias = at::zeros({count, kVocabulary}, at::kFloat);
  for (int64_t i = 0; i < count; ++i) {
    for (const TokenId id : rows[i].seen.ids()) seen[i][id] = true;
    for (const auto& [id, value] : rows[i].settings.logit_bias) bias[i][id] = value;
  }
  const at::Device device(TestDevice());
  return {.temperature = OfRows(rows, [](const Row& row) { return row.settings.temperature; }),
          .top_k = OfRows(rows, [](const Row& row) { return row.settings.top_k; }).to(at::kLong),
          .top_p = OfRows(rows, [](const Row& row) { return row.settings.top_p; }),
          .penalty = OfRows(rows, [](const Row& row) { return row.settings.repetition_penalty; }),
          .uniform = OfRows(rows, [](const Row& row) { return UniformAt(row.settings.seed, row.index); }),
          .seen = seen.to(device),
          .bias = bias.to(device)};
}

at::Tensor LogitsOf(const std::vector<Row>& rows) {
  std::vector<at::Tensor> logits;
  logits.reserve(rows.size());
  for (const Row& row : rows) logits.push_back(at::tensor(row.logits, at::kFloat));
  return at::stack(logits).to(Device());
}

void ExpectTheHostsChoices(const std::vector<Row>& rows, const SamplingNeeds& needs) {
  const at::Tensor results = SampleRows(LogitsOf(rows), SamplingOf(rows), needs).to(at::kCPU).contiguous();
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    const auto host = Sampler(kVocabulary).Sample(row.logits, row.settings, row.seen, row.index);
    ASSERT_TRUE(host.ok()) << host.status();
    const double* result = results.const_data_ptr<double>() + 2 * i;
    EXPECT_EQ(static_cast<TokenId>(result[0]), host->id)
        << "temperature " << row.settings.temperature << " top_k " << row.settings.top_k << " top_p "
        << row.settings.top_p << " seed " << row.settings.seed << " index " << row.index;
    EXPECT_NEAR(result[1], host->logprob, 1e-5);
  }
}

TEST(DeviceSamplerTest, ChoosesWhatTheHostChooses) {
  constexpr uint32_t kSeed = 4711;
  std::cout << "seed " << kSeed << "\n";
  std::mt19937 random(kSeed);
  for (int batch = 0; batch < 200 && !HasFailure(); ++batch) {
    std::vector<Row> rows;
    for (int i = 0; i < 32; ++i) rows.push_back(RandomRow(random));
    ExpectTheHostsChoices(rows, {.adjusts = true, .draws = true, .filters = true});
  }
}

TEST(DeviceSamplerTest, WhatNoRowNeedsIsLeftOut) {
  std::mt19937 random(815);
  std::vector<Row> rows;
  for (int i = 0; i < 64; ++i) {
    Row& row = rows.emplace_back(RandomRow(random));
    row.settings.repetition_penalty = 1.0F;
    row.settings.logit_bias.clear();
    row.settings.top_k = 0;
    row.settings.top_p = 1.0F;
  }
  ExpectTheHostsChoices(rows, {.draws = true});
  for (Row& row : rows) row.settings.temperature = 0;
  ExpectTheHostsChoices(rows, {});
}

TEST(DeviceSamplerTest, LogitsThatAreNoNumbersHaveNoToken) {
  std::mt19937 random(5);
  std::vector<Row> rows = {RandomRow(random), RandomRow(random), RandomRow(random)};
  rows[0].logits[13] = std::numeric_limits<float>::quiet_NaN();
  rows[2].logits[0] = std::numeric_limits<float>::infinity();
  const at::Tensor ids = SampleRows(LogitsOf(rows), SamplingOf(rows), {.adjusts = true, .draws = true, .filters = true})
                             .select(1, 0)
                             .to(at::kCPU);
  EXPECT_EQ(ids[0].item<double>(), -1);
  EXPECT_GE(ids[1].item<double>(), 0);
  EXPECT_EQ(ids[2].item<double>(), -1);
}

}  // namespace
}  // namespace retro
