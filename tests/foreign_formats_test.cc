// Other programs' checkpoints: every output of theirs that is known, in one go and in pieces, and errors that name what
// is wrong.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <filesystem>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "generator_service/checkpoints/foreign_format.h"
#include "generator_service/checkpoints/reference.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

using ::testing::HasSubstr;

constexpr double kTolerance = 2e-4;
constexpr double kExact = 1e-9;      // fp64 against fp64
constexpr double kExactRope = 1e-6;  // where the reference's table of angles is fp32
constexpr int64_t kChunk = 8;        // of all goldens here

struct Golden {
  const char* format;
  const char* name;
  bool fp32_angles = false;
  const char* weights = ".weights.safetensors";
};

const std::vector<Golden>& Goldens() {
  static const auto* goldens = new std::vector<Golden>{
      {"norlund", "norlund_tiny_pads_ragged"},   {"megatron", "megatron_tiny_ragged"},
      {"megatron", "megatron_tiny_nofinalnorm"}, {"megatron", "megatron_tiny_instructretro", true},
      {"lucidrains", "lucidrains_tiny", true},   {"instructretro", "instructretro_tp2", false, ""}};
  return *goldens;
}

std::string Stem(const Golden& golden) { return SourcePath(StrCat("tests/goldens/foreign/", golden.name)); }

absl::StatusOr<ForeignModel> Open(const Golden& golden) {
  return ForeignModel::Open(**FindForeignFormat(golden.format), Stem(golden) + ".json", Stem(golden) + golden.weights);
}

struct Loaded {
  std::unique_ptr<RetroModel> model;
  SafetensorsFile file;
  Reference reference;
  std::vector<std::string> wanted;
};

Loaded Load(const Golden& golden, at::ScalarType type) {
  const ForeignModel foreign = *Open(golden);
  std::map<std::string, at::Tensor> weights = *foreign.ReadAll();
  for (auto& [name, tensor] : weights) tensor = tensor.to(type);
  SafetensorsFile file = *SafetensorsFile::Open(Stem(golden) + ".io.safetensors");
  Loaded loaded{*RetroModel::Create(foreign.config(), weights, TestDevice()), std::move(file), {}, {}};
  loaded.reference = *ReadInputs(loaded.file);
  for (const std::string& name : KnownOutputs()) {
    if (loaded.file.tensors().contains(name)) loaded.wanted.push_back(name);
  }
  return loaded;
}

double Difference(const Loaded& loaded, const std::string& name, const at::Tensor& ours) {
  return (ours.to(at::kCPU).to(at::kDouble) - *ReadReference(loaded.file, name)).abs().max().item<double>();
}

class ForeignFormatsTest : public ::testing::TestWithParam<Golden> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

TEST_P(ForeignFormatsTest, EveryKnownOutputEqualsTheReference) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const Loaded loaded = Load(GetParam(), type);
    const auto outputs = RunReference(*loaded.model, loaded.reference, loaded.wanted, {});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_EQ(outputs->size(), loaded.wanted.size());
    EXPECT_TRUE(outputs->contains("logits_f64"));
    const double exact = GetParam().fp32_angles ? kExactRope : kExact;
    for (const auto& [name, ours] : *outputs) {
      const double difference = Difference(loaded, name, ours);
      std::cout << name << (type == at::kFloat ? " fp32 " : " fp64 ") << difference << "\n";
      const bool other_angles = name == "logits_rope32_f64";
      EXPECT_LE(difference, type == at::kFloat ? kTolerance : other_angles ? kExactRope : exact) << name;
    }
  }
}

TEST_P(ForeignFormatsTest, PiecesGiveTheSameLogits) {
  const Loaded loaded = Load(GetParam(), at::kFloat);
  for (const int64_t piece : {int64_t{1}, int64_t{3}, kChunk, 2 * kChunk + 1}) {
    const auto outputs = RunReference(*loaded.model, loaded.reference, {"logits_f64"}, {.piece = piece});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_LE(Difference(loaded, "logits_f64", outputs->at("logits_f64")), kTolerance) << "pieces of " << piece;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, ForeignFormatsTest, ::testing::ValuesIn(Goldens()),
                         [](const auto& info) { return info.param.name; });

// ---------------------------------------------------------------- what is wrong is named

// A copy of a golden's weights with one thing changed.
class Changed {
 public:
  explicit Changed(const Golden& golden)
      : golden_(golden), file_(*SafetensorsFile::Open(Stem(golden) + golden.weights)) {
    for (const auto& [name, tensor] : file_.tensors()) tensors_[name] = tensor;
  }

  std::map<std::string, TensorView>& tensors() { return tensors_; }

  std::string Says() {
    const std::string path = StrCat(::testing::TempDir(), "/changed_", golden_.name, ".safetensors");
    std::vector<NamedTensor> named;
    for (const auto& [name, tensor] : tensors_) named.push_back({name, tensor});
    EXPECT_TRUE(WriteSafetensors(path, named, {}).ok());
    auto opened = ForeignModel::Open(**FindForeignFormat(golden_.format), Stem(golden_) + ".json", path);
    if (!opened.ok()) return std::string(MessageOf(opened.status()));
    notes = opened->notes();
    return std::string(MessageOf(opened->ReadAll().status()));
  }

  std::vector<std::string> notes;

 private:
  Golden golden_;
  SafetensorsFile file_;
  std::map<std::string, TensorView> tensors_;
};

const Golden kNorlund = Goldens()[0];
const Golden kMegatron = Goldens()[1];
const Golden kLucidrains = Goldens()[4];

TEST(ForeignErrorsTest, TensorsAreNamed) {
  for (const Golden& golden : {kNorlund, kMegatron, kLucidrains}) {
    Changed missing(golden);
    const std::string name = std::prev(missing.tensors().end(), 2)->first;
    missing.tensors().erase(name);
    EXPECT_THAT(missing.Says(), HasSubstr(StrCat("'", name, "'"))) << golden.name;

    Changed surplus(golden);
    surplus.tensors()["decoder.blunder"] = surplus.tensors()[name];
    EXPECT_THAT(surplus.Says(), HasSubstr("'decoder.blunder' is not part")) << golden.name;

    Changed misshapen(golden);
    TensorView& view = misshapen.tensors()[name];
    view.shape.insert(view.shape.begin(), 1);
    EXPECT_THAT(misshapen.Says(), HasSubstr(StrCat("'", name, "' has shape [1, "))) << golden.name;

    Changed poisoned(golden);
    std::string bytes(poisoned.tensors()[name].bytes);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(bytes.data(), &nan, sizeof nan);
    poisoned.tensors()[name].bytes = bytes;
    EXPECT_THAT(poisoned.Says(), HasSubstr(StrCat("'", name, "' holds NaN"))) << golden.name;
  }
}

TEST(ForeignErrorsTest, DroppedTensorsAreReported) {
  Changed megatron(kMegatron);
  megatron.tensors()["decoder.layers.0.self_attention.linear_qkv._extra_state"] = {DType::kU8, {0}, ""};
  EXPECT_EQ(megatron.Says(), "");
  ASSERT_EQ(megatron.notes.size(), 1U);
  EXPECT_THAT(megatron.notes[0], HasSubstr("'decoder.layers.0.self_attention.linear_qkv._extra_state' was dropped"));

  Changed lucidrains(kLucidrains);
  EXPECT_EQ(lucidrains.Says(), "");
  EXPECT_EQ(lucidrains.notes.size(), 2U);
  std::string bytes(lucidrains.tensors()["encoder.rotary_pos_emb.inv_freq"].bytes);
  bytes[5] ^= 1;
  lucidrains.tensors()["encoder.rotary_pos_emb.inv_freq"].bytes = bytes;
  EXPECT_THAT(lucidrains.Says(), HasSubstr("'encoder.rotary_pos_emb.inv_freq' holds other frequencies"));
}

// A norm fused into the matrix after it is found under its other name.
TEST(ForeignErrorsTest, FusedNormsAreFound) {
  Changed megatron(kMegatron);
  const auto rename = [&](const std::string& from, const std::string& to) {
    for (const std::string what : {"weight", "bias"}) {
      auto node = megatron.tensors().extract(StrCat("decoder.layers.1.", from, ".", what));
      node.key() = StrCat("decoder.layers.1.", to, "_", what);
      megatron.tensors().insert(std::move(node));
    }
  };
  rename("input_layernorm", "self_attention.linear_qkv.layer_norm");
  rename("pre_mlp_layernorm", "mlp.linear_fc1.layer_norm");
  EXPECT_EQ(megatron.Says(), "");
}

// What an import of the config says after one textual change.
std::string ConfigSays(const Golden& golden, const std::string& from, const std::string& to) {
  std::string json = *ReadFile(Stem(golden) + ".json");
  const size_t at = json.find(from);
  if (at == std::string::npos) return "no such text";
  json.replace(at, from.size(), to);
  const std::string path = StrCat(::testing::TempDir(), "/changed.json");
  EXPECT_TRUE(WriteFileAtomically(path, json).ok());
  const auto opened = ForeignModel::Open(**FindForeignFormat(golden.format), path, Stem(golden) + golden.weights);
  if (!opened.ok()) return std::string(MessageOf(opened.status()));
  return opened->notes().empty() ? "" : opened->notes().back();
}

TEST(ForeignErrorsTest, ConfigKeysAreNamed) {
  EXPECT_THAT(ConfigSays(kNorlund, "\"dec_num_layers\"", "\"dec_layers\""), HasSubstr("'dec_num_layers' is missing"));
  EXPECT_THAT(ConfigSays(kNorlund, "\"dropout_p\"", "\"colour\""), HasSubstr("key 'colour' was not used"));
  EXPECT_THAT(ConfigSays(kNorlund, "\"chunk_size\": 8", "\"chunk_size\": \"8\""),
              HasSubstr("'chunk_size' must be an integer"));
  EXPECT_THAT(ConfigSays(kNorlund, "\"dec_num_heads\": 4", "\"dec_num_heads\": 5"),
              HasSubstr("multiple of its 5 heads"));
  EXPECT_THAT(ConfigSays(kMegatron, "\"ffn_hidden_size\": 48", "\"ffn_hidden_size\": 49"), HasSubstr("has shape"));
  EXPECT_THAT(ConfigSays(kMegatron, "\"retro_num_neighbors\"", "\"qk_layernorm\""),
              HasSubstr("'qk_layernorm' is 3, a feature that is not supported"));
  EXPECT_THAT(ConfigSays(kMegatron, "\"transformer\"", "\"transformers\""), HasSubstr("'transformer' is missing"));
  EXPECT_THAT(ConfigSays(kLucidrains, "\"pad_id\": 0", "\"pad_id\": 0, \"use_deepnet\": true"),
              HasSubstr("'use_deepnet' is true, a feature"));
  EXPECT_THAT(std::string(MessageOf(FindForeignFormat("word2vec").status())), HasSubstr("there are paper, norlund"));
}

TEST(ForeignErrorsTest, PaperNamesWhatIsWrong) {
  const std::string stem = SourcePath("tests/goldens/paper/paper_tiny");
  const ForeignFormat& paper = **FindForeignFormat("paper");
  EXPECT_TRUE(ForeignModel::Open(paper, stem + ".json", stem + ".weights.safetensors").ok());
  // Another config's weights: untied, so that READ is missing.
  const auto tied = ForeignModel::Open(paper, stem + "_variant.json", stem + ".weights.safetensors");
  EXPECT_EQ(tied.status().code(), absl::StatusCode::kNotFound) << tied.status();
  const std::string config = StrCat(::testing::TempDir(), "/paper_config.json");
  ASSERT_TRUE(WriteFileAtomically(config, R"({"d": 32, "colour": "blue"})").ok());
  EXPECT_THAT(std::string(MessageOf(ForeignModel::Open(paper, config, stem + ".weights.safetensors").status())),
              HasSubstr("unknown key 'colour'"));
}

// ---------------------------------------------------------------- and back

TEST(ForeignExportTest, RoundTripsAreBitForBit) {
  for (const Golden& golden :
       {Golden{"norlund", "../foreign/norlund_tiny_pads_ragged"}, Golden{"paper", "../paper/paper_tiny_variant"},
        Golden{"paper", "../paper/paper_tiny_mask_offset_share"}}) {
    const ForeignModel imported = *Open(golden);
    const auto exported = ExportModel(**FindForeignFormat(golden.format), imported.config(), *imported.ReadAll());
    ASSERT_TRUE(exported.ok()) << exported.status();
    const SafetensorsFile original = *SafetensorsFile::Open(Stem(golden) + golden.weights);
    EXPECT_EQ(exported->weights.size(), original.tensors().size());
    for (const auto& [name, tensor] : original.tensors()) {
      ASSERT_TRUE(exported->weights.contains(name)) << name;
      EXPECT_TRUE(at::equal(exported->weights.at(name), *ReadFloats(original, name))) << name;
    }
  }
}

TEST(ForeignExportTest, ModelsOfAnotherFormAreRefused) {
  const ForeignModel norlund = *Open(kNorlund);
  const auto paper = ExportModel(**FindForeignFormat("paper"), norlund.config(), *norlund.ReadAll());
  EXPECT_EQ(paper.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(MessageOf(paper.status())), HasSubstr("not of paper's form: norm is \"rms_eps_outside\""));
  const auto megatron = ExportModel(**FindForeignFormat("megatron"), norlund.config(), *norlund.ReadAll());
  EXPECT_THAT(std::string(MessageOf(megatron.status())), HasSubstr("no exporter to megatron"));
}

}  // namespace
}  // namespace retro
