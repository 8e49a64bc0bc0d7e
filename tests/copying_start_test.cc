// New weights that copy: before any training step a text is the more likely for neighbours that repeat it, by way of
// the previous-token heads.
#include "trainer/copying_start.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <functional>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "generator_service/checkpoints/random_init.h"
#include "generator_service/model/weights.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"
#include "trainer/batch.h"
#include "trainer/batch_forward.h"

namespace retro {
namespace {

using testing::HasSubstr;

ModelConfig WiderConfig() {
  ModelConfig config = TinyTrainingConfig();
  config.width = config.encoder_width = 32;
  config.head_size = config.encoder_head_size = 16;
  return config;
}

// Documents of random syllables, each there twice.
std::vector<std::string> TextsTwice(size_t pairs) {
  std::mt19937 random(5);
  std::vector<std::string> texts;
  for (size_t i = 0; i < pairs; ++i) {
    std::string text;
    for (int word = 0; word < 45; ++word) {
      text += {' ', "bdfgklmnprst"[random() % 12], "aeiou"[random() % 5], "bdglmnrst"[random() % 9]};
    }
    texts.insert(texts.end(), 2, text);
  }
  return texts;
}

class CopyingStartTest : public testing::Test {
 protected:
  void SetUp() override {
    MakeTinyData(folder_ / "data", TextsTwice(16));
    auto data = DataSet::Open(folder_ / "data");
    ASSERT_TRUE(data.ok()) << data.status();
    data_.emplace(*std::move(data));
    auto table = NeighbourTable::Open(folder_ / "data", *data_);
    ASSERT_TRUE(table.ok()) << table.status();
    table_.emplace(*std::move(table));
  }

  // An untrained decoder that knows nothing of what follows what, but tells tokens apart.
  static WeightMap Untrained(const ModelConfig& config) {
    WeightMap weights = *RandomWeights(config, 3);
    weights.at("decoder.embedding") = weights.at("decoder.embedding") * 50;
    if (config.final_norm) weights.at("decoder.final_norm") = weights.at("decoder.final_norm") * 0.1;
    return weights;
  }

  WeightMap Planted(const ModelConfig& config) const {
    WeightMap weights = Untrained(config);
    const absl::Status planted = PlantCopying(config, *data_, {.length = 64}, weights);
    EXPECT_TRUE(planted.ok()) << planted;
    return weights;
  }

  // Nats a token.
  double Loss(const ModelConfig& config, const WeightMap& weights, bool retrieval) const {
    const at::NoGradGuard no_grad;
    BatchMaker maker(*data_, retrieval ? &*table_ : nullptr, config,
                     {.windows = 8, .length = 64, .offset_share = 0, .no_retrieval_share = 0});
    const Batch batch = maker.Make(0);
    const at::Tensor loss = SummedLoss(BatchForward(*BindWeights(config, weights), config, batch), batch);
    return loss.item<double>() / static_cast<double>(batch.label_count);
  }

  TemporaryFolder folder_;
  std::optional<DataSet> data_;
  std::optional<NeighbourTable> table_;
};

TEST_F(CopyingStartTest, RepeatedTextIsMoreLikelyByTheTokenBefore) {
  const ModelConfig config = WiderConfig();
  WeightMap weights = Planted(config);
  const double without = Loss(config, weights, false);
  EXPECT_LT(Loss(config, weights, true), without - 1);
  // The decoder is as it was, so random CCA and encoder are worth nothing.
  EXPECT_EQ(Loss(config, Untrained(config), false), without);
  EXPECT_GT(Loss(config, Untrained(config), true), without - 0.1);
  // Nothing but the token before tells which token is wanted.
  weights.at("encoder.1.attention.position_bias") = at::zeros_like(weights.at("encoder.1.attention.position_bias"));
  EXPECT_GT(Loss(config, weights, true), without - 0.5);
}

TEST_F(CopyingStartTest, EveryShapeOfModelCopies) {
  const std::vector<std::pair<const char*, std::function<void(ModelConfig&)>>> shapes = {
      {"an embedding of the encoder's own, wider",
       [](ModelConfig& c) { c.shared_embedding = false, c.encoder_width = 48; }},
      {"narrower, with a final norm",
       [](ModelConfig& c) { c.shared_embedding = false, c.encoder_width = 24, c.encoder_final_norm = true; }},
      {"one CCA layer, a gate", [](ModelConfig& c) { c.cca_layers = {2}, c.gate = 0.5; }},
      {"unlike heads", [](ModelConfig& c) { c.heads = 3, c.head_size = 12, c.encoder_heads = 1; }},
      {"unscaled logits", [](ModelConfig& c) { c.attention_scale = false; }},
      {"layer norm", [](ModelConfig& c) { c.norm = NormKind::kLayer, c.encoder_final_norm = true; }},
      {"gated FFW, no final norm", [](ModelConfig& c) { c.gated_ffw = true, c.final_norm = false; }},
  };
  for (const auto& [name, change] : shapes) {
    ModelConfig config = WiderConfig();
    change(config);
    ASSERT_TRUE(ValidateModelConfig(config).ok()) << name;
    WeightMap weights = Untrained(config);
    ASSERT_EQ(PlantCopying(config, *data_, {.length = 64}, weights), absl::OkStatus()) << name;
    EXPECT_LT(Loss(config, weights, true), Loss(config, weights, false) - 1) << name;
  }
}

TEST_F(CopyingStartTest, IsAFunctionOfItsSeed) {
  const ModelConfig config = WiderConfig();
  const WeightMap once = Planted(config);
  for (const auto& [name, again] : Planted(config)) EXPECT_TRUE(again.equal(once.at(name))) << name;
}

TEST_F(CopyingStartTest, OtherFormsAreRefused) {
  const std::vector<std::pair<const char*, std::function<void(ModelConfig&)>>> forms = {
      {"'position_biases'", [](ModelConfig& c) { c.position_biases = false; }},
      {"'tied_readout'", [](ModelConfig& c) { c.tied_readout = false; }},
      {"'gate'", [](ModelConfig& c) { c.gate = 0; }},
      {"'encoder_cca_residual_normed'", [](ModelConfig& c) { c.encoder_cca_residual_normed = true; }},
      {"transformer_xl", [](ModelConfig& c) { c.positions = Positions::kNone; }},
  };
  for (const auto& [name, change] : forms) {
    ModelConfig config = WiderConfig();
    change(config);
    WeightMap weights = Untrained(config);
    const absl::Status status = PlantCopying(config, *data_, {.length = 64}, weights);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

TEST_F(CopyingStartTest, TooLittleTextIsRefused) {
  const ModelConfig config = WiderConfig();
  WeightMap weights = Untrained(config);
  const absl::Status odd = PlantCopying(config, *data_, {.length = 60}, weights);
  EXPECT_THAT(std::string(odd.message()), HasSubstr("must be a multiple of 8"));
  MakeTinyData(folder_ / "short", {"a", "a"});
  const absl::Status status = PlantCopying(config, *DataSet::Open(folder_ / "short"), {.length = 64}, weights);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("less than one window"));
}

}  // namespace
}  // namespace retro
