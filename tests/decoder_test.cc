// The decoder's mathematics in fp64, where an error of layout cannot hide in rounding, and its gradients, which
// training uses.
#include "generator_service/model/decoder.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/paper_reference.h"

namespace retro {
namespace {

constexpr double kExact = 1e-10;             // fp64 against fp64
constexpr double kStep = 1e-6;               // of the difference quotient
constexpr double kGradientTolerance = 1e-6;  // relative to the gradient's size or 1

struct Fixture {
  PaperReference reference;
  ModelConfig config;
  WeightMap weights;  // fp64
};

Fixture LoadFixture(const std::string& name) {
  Fixture fixture{LoadPaperReference(name), {}, {}};
  fixture.config = fixture.reference.config;
  for (const auto& [weight, tensor] : fixture.reference.weights) fixture.weights[weight] = tensor.to(at::kDouble);
  return fixture;
}

// Logits of the whole text in one pass without caches, as in training: [n, V].
at::Tensor Logits(const Fixture& fixture) {
  const ModelWeights weights = *BindWeights(fixture.config, fixture.weights);
  SequenceState state({.offset = fixture.reference.offset}, fixture.config, /*pool=*/nullptr);
  const int64_t rows = static_cast<int64_t>(fixture.reference.tokens.size());
  const DecoderPiece piece{.state = &state, .rows = rows, .neighbours = fixture.reference.neighbours};
  const at::Tensor tokens = at::tensor(at::ArrayRef<TokenId>(fixture.reference.tokens), at::kLong);
  return ReadOut(weights, fixture.config, RunDecoder(weights, fixture.config, tokens, {&piece, 1}).h);
}

class DecoderTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

TEST_P(DecoderTest, Fp64EqualsReference) {
  const Fixture fixture = LoadFixture(GetParam());
  const at::Tensor difference = (Logits(fixture) - fixture.reference.logits).abs().flatten();
  const int64_t worst = difference.argmax().item<int64_t>();
  std::cout << "max |diff| " << difference[worst].item<double>() << " at flat index " << worst << "\n";
  EXPECT_LE(difference[worst].item<double>(), kExact);
}

INSTANTIATE_TEST_SUITE_P(Goldens, DecoderTest, ::testing::ValuesIn(PaperReferenceNames()),
                         [](const auto& info) { return info.param; });

double Loss(const Fixture& fixture, const at::Tensor& direction) {
  return (Logits(fixture) * direction).sum().item<double>();
}

// Every weight's gradient along one random direction, against the difference quotient.
TEST(DecoderGradientTest, EqualsTheDifferenceQuotient) {
  at::set_num_threads(1);
  at::manual_seed(1);
  for (const std::string name : {"paper_tiny_mask_offset_share", "paper_tiny_variant"}) {
    Fixture fixture = LoadFixture(name);
    const at::Tensor direction = at::randn(fixture.reference.logits.sizes(), at::kDouble) / 30;
    for (auto& [weight, tensor] : fixture.weights) tensor.set_requires_grad(true);
    (Logits(fixture) * direction).sum().backward();
    const c10::AutoGradMode no_gradients(false);
    WeightMap leaves = fixture.weights;
    for (const auto& [weight, leaf] : leaves) {
      ASSERT_TRUE(leaf.grad().defined()) << weight;
      const at::Tensor step = at::randn_like(leaf) / std::sqrt(static_cast<double>(leaf.numel()));
      fixture.weights[weight] = leaf + kStep * step;
      const double above = Loss(fixture, direction);
      fixture.weights[weight] = leaf - kStep * step;
      const double below = Loss(fixture, direction);
      fixture.weights[weight] = leaf;
      const double gradient = (leaf.grad() * step).sum().item<double>();
      EXPECT_NEAR((above - below) / (2 * kStep), gradient, kGradientTolerance * std::max(1.0, std::abs(gradient)))
          << weight;
    }
  }
}

}  // namespace
}  // namespace retro
