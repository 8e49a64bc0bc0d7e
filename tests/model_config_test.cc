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
  config.norm_eps = 1e-5;
  config.activation = Activation::kRelu;
  config.position_biases = false;
  config.tied_readout = false;
  config.shared_embedding = false;
  config.encoder_final_norm = true;
  config.conditioning_norm = true;
  config.mask_pad = false;
  config.pad_id = 3;
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
  EXPECT_THAT(ReadingSays("width", "254"), HasSubstr("encoder_width must be the width 254"));
  EXPECT_THAT(ReadingSays("heads", "true"), HasSubstr("heads must be an integer"));
  EXPECT_THAT(ReadingSays("cca_layers", "[5, 3]"), HasSubstr("cca_layers must be rising"));
  EXPECT_THAT(ReadingSays("cca_layers", "[7]"), HasSubstr("cca_layers must be rising numbers from 1 to 6"));
  EXPECT_THAT(ReadingSays("encoder_cca_layers", "[0]"), HasSubstr("encoder_cca_layers must be rising"));
  EXPECT_THAT(ReadingSays("activation", "\"swish\""), HasSubstr("activation must be gelu_tanh"));
  EXPECT_THAT(ReadingSays("norm_eps", "0"), HasSubstr("norm_eps must be between"));
  EXPECT_THAT(ReadingSays("pad_id", "16384"), HasSubstr("pad_id must be from 0 to 16383"));
  EXPECT_THAT(ReadingSays("neighbour_length", "63"),
              HasSubstr("neighbour_length must be at least the chunk_length 64"));
  EXPECT_THAT(ReadingSays("chunk_length", "-64"), HasSubstr("chunk_length must be from 1"));
  EXPECT_THAT(std::string(MessageOf(ModelConfigFromJson(R"({"width": 8})").status())),
              HasSubstr("'ffw_width' is missing"));
  EXPECT_THAT(std::string(MessageOf(ModelConfigFromJson("[]").status())), HasSubstr("not a JSON object"));
}

TEST(ModelConfigTest, UnknownKeysAreErrors) {
  std::string json = ModelConfigToJson(*PresetModelConfig("retro-demo"));
  json.insert(1, "\"widht\": 8,");
  EXPECT_THAT(std::string(MessageOf(ModelConfigFromJson(json).status())), HasSubstr("unknown key 'widht'"));
}

}  // namespace
}  // namespace retro
