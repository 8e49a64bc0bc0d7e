#include "retriever_service/embed/bert_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>

namespace retro {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

constexpr unsigned kSeed = 5;

// The largest |ours - reference| over a fine grid, tails included; one row of a width that is no multiple of a vector.
double WorstActivation(BertActivation activation, double (*reference)(double)) {
  constexpr int kWidth = 200'003;
  const std::vector<float> bias(kWidth, 0.25f);
  std::vector<float> x(kWidth);
  const auto input = [](int i) { return -100.0f + 200.0f * static_cast<float>(i) / kWidth; };
  for (int i = 0; i < kWidth; ++i) x[i] = input(i);
  AddBiasAndActivate(1, x.data(), bias, activation);
  double worst = 0;
  for (int i = 0; i < kWidth; ++i) {
    const double expected = reference(double{input(i) + 0.25f});
    worst = std::max(worst, std::abs(x[i] - expected) / std::max(1.0, std::abs(expected)));
  }
  std::cout << "largest error " << worst << '\n';
  return worst;
}

TEST(BertKernelsTest, ActivationsAreTheExactOnes) {
  EXPECT_LE(WorstActivation(BertActivation::kGelu,
                            [](double x) { return 0.5 * x * (1 + std::erf(x / std::numbers::sqrt2)); }),
            2e-6);
  EXPECT_LE(WorstActivation(BertActivation::kGeluTanh,
                            [](double x) {
                              const double u = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
                              return 0.5 * x * (1 + std::tanh(u));
                            }),
            2e-6);
  EXPECT_EQ(WorstActivation(BertActivation::kRelu, [](double x) { return std::max(x, 0.0); }), 0);
}

TEST(BertKernelsTest, AddAndNormaliseIsLayerNormOfTheSum) {
  constexpr int kRows = 3;
  constexpr float kEpsilon = 1e-3f;
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal(2, 3);
  for (const int width : {1, 7, 8, 24, 39}) {
    const auto fill = [&](int count) {
      std::vector<float> values(count);
      for (float& value : values) value = normal(random);
      return values;
    };
    const std::vector<float> before = fill(kRows * width), one = fill(kRows * width), two = fill(kRows * width);
    const std::vector<float> bias = fill(width);
    const NormWeights norm = {.gamma = fill(width), .beta = fill(width)};
    std::vector<float> x = before;
    const std::vector<const float*> parts = {one.data(), two.data()};
    AddAndNormalise(kRows, x.data(), parts, bias, norm, kEpsilon);
    for (int r = 0; r < kRows; ++r) {
      const auto sum = [&](int i) {
        const int at = r * width + i;
        return double{before[at]} + one[at] + two[at] + bias[i];
      };
      double mean = 0, variance = 0;
      for (int i = 0; i < width; ++i) mean += sum(i) / width;
      for (int i = 0; i < width; ++i) variance += (sum(i) - mean) * (sum(i) - mean) / width;
      for (int i = 0; i < width; ++i) {
        const double expected = (sum(i) - mean) / std::sqrt(variance + kEpsilon) * norm.gamma[i] + norm.beta[i];
        EXPECT_NEAR(x[r * width + i], expected, 2e-5) << "width " << width;
      }
    }
  }
}

TEST(BertKernelsTest, PoolingsTakeTheFirstTheMeanAndTheLargest) {
  const std::vector<float> rows = {1, -4, 3, -5, 5, -9};
  std::vector<float> out(2);
  Pool(3, 2, rows.data(), BertPooling::kCls, out.data());
  EXPECT_THAT(out, ElementsAre(1, -4));
  Pool(3, 2, rows.data(), BertPooling::kMean, out.data());
  EXPECT_THAT(out, ElementsAre(3, -6));
  Pool(3, 2, rows.data(), BertPooling::kMax, out.data());
  EXPECT_THAT(out, ElementsAre(5, -4));
}

TEST(BertKernelsTest, NormaliseVectorLeavesZeroAlone) {
  std::vector<float> vector = {3, 4}, zero = {0, 0};
  NormaliseVector(vector);
  NormaliseVector(zero);
  EXPECT_THAT(vector, ElementsAre(FloatNear(0.6f, 1e-6f), FloatNear(0.8f, 1e-6f)));
  EXPECT_THAT(zero, ElementsAre(0, 0));
}

}  // namespace
}  // namespace retro
