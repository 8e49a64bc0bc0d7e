// Configs, presets, and the parameter counts that verify the architecture.
#include <algorithm>
#include <set>
#include <string>

#include "common/base/strings.h"
#include "generator_service/model/config.h"
#include "generator_service/model/weight_table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace retro {
namespace {

using ::testing::HasSubstr;

double Millions(const ModelConfig& config) {
  return static_cast<double>(CountMatrixParameters(WeightTable(config))) / 1e6;
}

TEST(ModelConfigTest, ParameterCountsOfThePaper) {
  struct Row {
    const char* preset;
    double retro, baseline;              // as computed, to 0.005 M
    double paper_retro, paper_baseline;  // as printed, to 0.05 %
  };
  for (const Row& row :
       {Row{"retro-172m", 172.49, 132.12, 172, 132}, Row{"retro-425m", 425.46, 368.05, 425, 368},
        Row{"retro-1.5b", 1451.36, 1308.62, 1451, 1309}, Row{"retro-7.5b", 7531.53, 6979.32, 7532, 6982}}) {
    ModelConfig config = *PresetModelConfig(row.preset);
    EXPECT_NEAR(Millions(config), row.retro, 0.005) << row.preset;
    EXPECT_NEAR(Millions(config), row.paper_retro, std::max(0.5, row.paper_retro * 5e-4)) << row.preset;
    config.cca_layers.clear();
    EXPECT_NEAR(Millions(config), row.baseline, 0.005) << row.preset;
    EXPECT_NEAR(Millions(config), row.paper_baseline, std::max(0.5, row.paper_baseline * 5e-4)) << row.preset;
  }
}

TEST(ModelConfigTest, PresetsAreValidAndSurviveJson) {
  for (const std::string& name : PresetNames()) {
    const ModelConfig config = *PresetModelConfig(name);
    EXPECT_TRUE(ValidateModelConfig(config).ok()) << name;
    const auto read = ModelConfigFromJson(ModelConfigToJson(config));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, config) << name;
  }
  EXPECT_EQ(PresetModelConfig("retro-9b").status().code(), absl::StatusCode::kNotFound);
}

TEST(ModelConfigTest, EveryChoiceSurvivesJson) {
  ModelConfig config = *PresetModelConfig("retro-demo");
  config.norm = NormKind::kLayer;
  config.norm_eps = 1e-5;
  config.final_norm = false;
  config.post_norm = true;
  config.residual_scale = 1.5;
  config.encoder_residual_scale = 0.5;
  config.activation = Activation::kSilu;
  config.gated_ffw = true;
  config.attention_scale = false;
  config.query_key_value_biases = true;
  config.output_biases = true;
  config.readout_bias = true;
  config.tied_readout = false;
  config.shared_embedding = true;
  config.embedding_width = 256;
  config.encoder_final_norm = true;
  config.encoder_projection = true;
  config.conditioning_norm = true;
  config.encoder_cca_residual_normed = true;
  config.null_key = true;
  config.gate = 0.5;
  config.positions = Positions::kRotary;
  config.position_biases = false;
  config.attention_buckets = 1;
  config.cca_buckets = 2;
  config.encoder_attention_buckets = 3;
  config.encoder_cca_buckets = 4;
  config.rotary_size = 16;
  config.rotary_base = 500000;
  config.learned_positions = LearnedPositions::kBoth;
  config.additive_pad_mask = true;
  config.pad_id = 3;
  config.offset = 7;
  config.partial_chunk_first = true;
  EXPECT_EQ(*ModelConfigFromJson(ModelConfigToJson(config)), config);
}

TEST(ModelConfigTest, WeightNamesAreUniqueAndTiedOnesStandOnce) {
  ModelConfig config = *PresetModelConfig("retro-demo");
  const auto count = [&config] {
    std::set<std::string> names;
    for (const WeightSpec& spec : WeightTable(config)) EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    return names.size();
  };
  const size_t tied = count();
  config.tied_readout = false;
  EXPECT_EQ(count(), tied + 1);
  config.shared_embedding = false;
  EXPECT_EQ(count(), tied + 2);
}

// Replaces the value of one key of the demo's JSON and returns what reading says.
std::string ReadingSays(const std::string& key, const std::string& value) {
  std::string json = ModelConfigToJson(*PresetModelConfig("retro-demo"));
  const size_t at = json.find(StrCat("\"", key, "\": "));
  if (at == std::string::npos) return "no such key";
  const size_t begin = at + key.size() + 4;
  const size_t end = json[begin] == '[' ? json.find(']', begin) + 1 : json.find_first_of(",\n", begin);
  json.replace(begin, end - begin, value);
  return std::string(MessageOf(ModelConfigFromJson(json).status()));
}

TEST(ModelConfigTest, InvalidValuesAreNamed) {
  EXPECT_THAT(ReadingSays("width", "0"), HasSubstr("width must be from 2"));
  EXPECT_THAT(ReadingSays("width", "257"), HasSubstr("width must be even"));
  EXPECT_THAT(ReadingSays("width", "99999999999999999999"), HasSubstr("width must be an integer"));
  EXPECT_THAT(ReadingSays("width", "254"), HasSubstr("encoder_width must be the embedding's width 254"));
  EXPECT_THAT(ReadingSays("heads", "true"), HasSubstr("heads must be an integer"));
  EXPECT_THAT(ReadingSays("cca_layers", "[5, 3]"), HasSubstr("cca_layers must be rising"));
  EXPECT_THAT(ReadingSays("cca_layers", "[7]"), HasSubstr("cca_layers must be rising numbers from 1 to 6"));
  EXPECT_THAT(ReadingSays("encoder_cca_layers", "[0]"), HasSubstr("encoder_cca_layers must be rising"));
  EXPECT_THAT(ReadingSays("activation", "\"swish\""), HasSubstr("activation must be one of gelu_tanh"));
  EXPECT_THAT(ReadingSays("norm_eps", "0"), HasSubstr("norm_eps must be between"));
  EXPECT_THAT(ReadingSays("pad_id", "16384"), HasSubstr("pad_id must be from 0 to 16383"));
  EXPECT_THAT(ReadingSays("neighbour_length", "63"),
              HasSubstr("neighbour_length must be at least the chunk_length 64"));
  EXPECT_THAT(ReadingSays("chunk_length", "-64"), HasSubstr("chunk_length must be from 1"));
  EXPECT_THAT(std::string(MessageOf(ModelConfigFromJson(R"({"width": 8})").status())),
              HasSubstr("'ffw_width' is missing"));
  EXPECT_THAT(std::string(MessageOf(ModelConfigFromJson("[]").status())), HasSubstr("not a JSON object"));
}

TEST(ModelConfigTest, ChoicesThatContradictEachOtherAreNamed) {
  EXPECT_THAT(ReadingSays("positions", "\"rotary\""), HasSubstr("rotary_size must be from 2 to 32"));
  EXPECT_THAT(ReadingSays("positions", "\"buckets\""), HasSubstr("attention_buckets must be from 1"));
  EXPECT_THAT(ReadingSays("positions", "\"somewhere\""), HasSubstr("positions must be one of transformer_xl"));
  EXPECT_THAT(ReadingSays("norm", "1"), HasSubstr("norm must be one of rms"));
  EXPECT_THAT(ReadingSays("embedding_width", "128"), HasSubstr("embedding_width must be the width"));
  EXPECT_THAT(ReadingSays("offset", "64"), HasSubstr("offset must be from 0 to 63"));
  EXPECT_THAT(ReadingSays("residual_scale", "2"), HasSubstr("post_norm must be on"));
  std::string json = ModelConfigToJson(*PresetModelConfig("retro-demo"));
  json.replace(json.find("\"mask_pad\": true"), 16, "\"mask_pad\": false");
  json.replace(json.find("\"additive_pad_mask\": false"), 26, "\"additive_pad_mask\": true");
  EXPECT_THAT(std::string(MessageOf(ModelConfigFromJson(json).status())), HasSubstr("mask_pad must be on"));
}

TEST(ModelConfigTest, DefaultOffsets) {
  ModelConfig config = *PresetModelConfig("retro-demo");
  EXPECT_EQ(DefaultOffset(config, 100), 0);
  config.offset = 7;
  EXPECT_EQ(DefaultOffset(config, 100), 7);
  config.partial_chunk_first = true;
  EXPECT_EQ(DefaultOffset(config, 100), 36);
  EXPECT_EQ(DefaultOffset(config, 128), 0);
}

TEST(ModelConfigTest, UnknownKeysAreErrors) {
  std::string json = ModelConfigToJson(*PresetModelConfig("retro-demo"));
  json.insert(1, "\"widht\": 8,");
  EXPECT_THAT(std::string(MessageOf(ModelConfigFromJson(json).status())), HasSubstr("unknown key 'widht'"));
}

}  // namespace
}  // namespace retro
