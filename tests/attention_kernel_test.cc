#include "retriever_service/embed/attention_kernel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace retro {
namespace {

constexpr unsigned kSeed = 11;

// softmax(Q K^T / sqrt(d)) V in double, as it is written.
std::vector<double> Reference(int tokens, int width, int head_size, const std::vector<float>& qkv,
                              const std::vector<float>& bias) {
  const auto value = [&](int part, int token, int column) {
    const int i = part * width + column;
    return double{qkv[token * 3 * width + i]} + bias[i];
  };
  std::vector<double> out(size_t(tokens) * width, 0.0);
  for (int column = 0; column < width; ++column) {
    const int head = column / head_size * head_size;
    for (int t = 0; t < tokens; ++t) {
      double sum = 0;
      for (int u = 0; u < tokens; ++u) {
        double score = 0;
        for (int i = 0; i < head_size; ++i) score += value(0, t, head + i) * value(1, u, head + i);
        const double weight = std::exp(score / std::sqrt(head_size));
        sum += weight;
        out[t * width + column] += weight * value(2, u, column);
      }
      out[t * width + column] /= sum;
    }
  }
  return out;
}

TEST(AttentionKernelTest, IsSoftmaxAttentionForAllLengthsAndHeadSizes) {
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal;
  for (const int head_size : {1, 8, 13, 16, 32, 64}) {
    AttentionKernel kernel(head_size);
    for (const int tokens : {1, 2, 3, 4, 5, 15, 16, 17, 66, 3}) {  // 3 again: nothing of the longer text may be left
      const int width = 2 * head_size;
      const size_t size = size_t(tokens) * width;
      std::vector<float> qkv(3 * size), bias(3 * size_t(width)), out(size, -1);
      for (float& x : qkv) x = normal(random);
      for (float& x : bias) x = normal(random);
      kernel.Run(tokens, width, qkv.data(), bias, out.data());
      const std::vector<double> reference = Reference(tokens, width, head_size, qkv, bias);
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], reference[i], 1e-5) << "head size " << head_size << ", tokens " << tokens << ", at " << i;
      }
    }
  }
}

TEST(AttentionKernelTest, ScoresFarApartNeitherOverflowNorLose) {
  AttentionKernel kernel(1);
  const std::vector<float> bias(3, 0.0f);
  const std::vector<float> qkv = {100, 100, 1, 100, -100, 2, 100, 99.99f, 3};  // scores 10000, -10000, 9999
  std::vector<float> out(3);
  kernel.Run(3, 1, qkv.data(), bias, out.data());
  const float expected = (1 + 3 * std::exp(-1.0f)) / (1 + std::exp(-1.0f));
  for (const float value : out) EXPECT_NEAR(value, expected, 2e-3);  // 99.99f is not exact
}

}  // namespace
}  // namespace retro
