// Other programs' checkpoints: every output of theirs that is known, in one go and in pieces, and errors that name what
// is wrong.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "generator_service/checkpoints/foreign_format.h"
#include "generator_service/checkpoints/reference.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "generator_service/checkpoints/tensor_parallel.h"
#include "generator_service/checkpoints/torch_archive.h"
#include "generator_service/model/decoder.h"
#include "generator_service/model/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/test_paths.h"
#include "tests/torch_memory.h"

namespace retro {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
namespace fs = std::filesystem;

constexpr double kTolerance = 2e-4;
constexpr double kExact = 1e-9;      // fp64 against fp64
constexpr double kExactRope = 1e-5;  // where the reference's table of angles is fp32
constexpr int64_t kChunk = 8;        // of all goldens here

struct Golden {
  const char* format;
  const char* name;
  bool fp32_angles = false;
  const char* weights = ".weights.safetensors";
};

const std::vector<Golden>& Goldens() {
  static const auto* goldens = new std::vector<Golden>{
      {"norlund", "norlund_tiny_pads_ragged"},    {"megatron", "megatron_tiny_ragged"},
      {"megatron", "megatron_tiny_nofinalnorm"},  {"megatron", "megatron_tiny_instructretro", true},
      {"lucidrains", "lucidrains_tiny", true},    {"instructretro", "instructretro_tp2", false, ""},
      {"lucidrains", "lucidrains_deepnet", true}, {"lucidrains", "lucidrains_gated", true}};
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

Loaded Load(const Golden& golden) {
  const ForeignModel foreign = *Open(golden);
  const std::map<std::string, at::Tensor> weights = *foreign.ReadAll();
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
  const Loaded loaded = Load(GetParam());
  const auto outputs = RunReference(*loaded.model, loaded.reference, loaded.wanted, {});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ(outputs->size(), loaded.wanted.size());
  EXPECT_TRUE(outputs->contains("logits_f64"));
  for (const auto& [name, ours] : *outputs) {
    const double difference = Difference(loaded, name, ours);
    std::cout << name << " " << difference << "\n";
    EXPECT_LE(difference, kTolerance) << name;
  }
}

TEST_P(ForeignFormatsTest, PiecesGiveTheSameLogits) {
  const Loaded loaded = Load(GetParam());
  for (const int64_t piece : {int64_t{1}, int64_t{3}, kChunk, 2 * kChunk + 1}) {
    const auto outputs = RunReference(*loaded.model, loaded.reference, {"logits_f64"}, {.piece = piece});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_LE(Difference(loaded, "logits_f64", outputs->at("logits_f64")), kTolerance) << "pieces of " << piece;
  }
}

// The numbers that a CPU serves in, relative to the largest logit: int8 is told, fp16 is bounded. Where attention's
// logits are not divided by the root of the head size they are large, and with them what rounding the weights does.
TEST_P(ForeignFormatsTest, Fp16StaysNearTheReference) {
  const Loaded loaded = Load(GetParam());
  const ForeignModel foreign = *Open(GetParam());
  const double fp16_bound = foreign.config().attention_scale ? 5e-3 : 2e-2;
  const double largest = ReadReference(loaded.file, "logits_f64")->abs().max().item<double>();
  for (const ModelNumbers numbers : {ModelNumbers::kFp16, ModelNumbers::kInt8}) {
    const auto model = *RetroModel::Create(foreign.config(), *foreign.ReadAll(), "cpu", {.numbers = numbers});
    for (const int64_t piece : {int64_t{0}, int64_t{1}}) {
      const auto outputs = RunReference(*model, loaded.reference, {"logits_f64"}, {.piece = piece});
      ASSERT_TRUE(outputs.ok()) << outputs.status();
      const double error = Difference(loaded, "logits_f64", outputs->at("logits_f64")) / largest;
      std::cout << ModelNumbersName(numbers) << (piece == 0 ? " whole " : " token by token ") << error << "\n";
      EXPECT_LE(error, numbers == ModelNumbers::kFp16 ? fp16_bound : 1.0);
    }
  }
}

// Logits of one text in one pass without caches, as in training: [n, V].
at::Tensor TrainingLogits(const ModelConfig& config, const WeightMap& weights, const ReferenceText& text) {
  const ModelWeights bound = *BindWeights(config, weights);
  const auto rows = static_cast<int64_t>(text.tokens.size());
  SequenceState state({.offset = DefaultOffset(config, rows)}, config, /*pool=*/nullptr);
  const int64_t complete = state.geometry.CompleteChunks(rows);
  const DecoderPiece piece{.state = &state, .rows = rows, .neighbours = std::span(text.neighbours).first(complete)};
  const at::Tensor tokens = at::tensor(at::ArrayRef<TokenId>(text.tokens), at::kLong);
  return ReadOut(bound, config, RunDecoder(bound, config, tokens, {&piece, 1}).h);
}

// In fp64, where an error of layout cannot hide in rounding.
TEST_P(ForeignFormatsTest, Fp64EqualsTheReference) {
  const ForeignModel foreign = *Open(GetParam());
  WeightMap weights = *foreign.ReadAll();
  for (auto& [name, tensor] : weights) tensor = tensor.to(at::kDouble);
  const SafetensorsFile file = *SafetensorsFile::Open(Stem(GetParam()) + ".io.safetensors");
  const at::Tensor logits = TrainingLogits(foreign.config(), weights, ReadInputs(file)->texts[0]);
  const at::Tensor reference = *ReadReference(file, "logits_f64");  // [B, n, V]
  const double difference = (logits - reference[0]).abs().max().item<double>();
  std::cout << "logits_f64 fp64 " << difference << "\n";
  EXPECT_LE(difference, GetParam().fp32_angles ? kExactRope : kExact);
}

// The gradient of all weights along one random direction, against the difference quotient.
TEST_P(ForeignFormatsTest, GradientsEqualTheDifferenceQuotient) {
  constexpr double kStep = 1e-6;
  at::manual_seed(1);
  const ForeignModel foreign = *Open(GetParam());
  const ReferenceText text = ReadInputs(*SafetensorsFile::Open(Stem(GetParam()) + ".io.safetensors"))->texts[0];
  WeightMap leaves;
  const WeightMap weights = *foreign.ReadAll();
  for (const auto& [name, tensor] : weights) leaves[name] = tensor.to(at::kDouble).set_requires_grad(true);
  const at::Tensor logits = TrainingLogits(foreign.config(), leaves, text);
  const at::Tensor direction = at::randn(logits.sizes(), at::kDouble) / 30;
  (logits * direction).sum().backward();

  const c10::AutoGradMode no_gradients(false);
  WeightMap above;
  WeightMap below;
  double gradient = 0;
  for (const auto& [name, leaf] : leaves) {
    ASSERT_TRUE(leaf.grad().defined()) << name;
    const at::Tensor step = at::randn_like(leaf) / std::sqrt(static_cast<double>(leaf.numel()));
    gradient += (leaf.grad() * step).sum().item<double>();
    above[name] = leaf + kStep * step;
    below[name] = leaf - kStep * step;
  }
  const auto loss = [&](const WeightMap& moved) {
    return (TrainingLogits(foreign.config(), moved, text) * direction).sum().item<double>();
  };
  EXPECT_NEAR((loss(above) - loss(below)) / (2 * kStep), gradient, 1e-5 * std::max(1.0, std::abs(gradient)));
}

INSTANTIATE_TEST_SUITE_P(Goldens, ForeignFormatsTest, ::testing::ValuesIn(Goldens()),
                         [](const auto& info) { return info.param.name; });

// A null key is attended to even where all neighbours of a chunk are pad, and the encoder has nothing to do.
TEST(ForeignFormatsNullKeyTest, ChunksOfPadOnlyAttendToIt) {
  at::set_num_threads(1);
  const Golden lucidrains = Goldens()[4];
  const Loaded loaded = Load(lucidrains);
  Reference reference = loaded.reference;
  reference.texts.resize(1);
  for (TokenId& id : reference.texts[0].neighbours[0].tokens) id = 0;
  const ForeignModel foreign = *Open(lucidrains);
  WeightMap weights = *foreign.ReadAll();
  for (auto& [name, tensor] : weights) tensor = tensor.to(at::kDouble);
  const at::Tensor exact = TrainingLogits(foreign.config(), weights, reference.texts[0]);
  for (const int64_t piece : {int64_t{0}, int64_t{1}, kChunk}) {
    const auto outputs = RunReference(*loaded.model, reference, {"logits_f64"}, {.piece = piece});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    const at::Tensor logits = outputs->at("logits_f64")[0].to(at::kCPU).to(at::kDouble);
    EXPECT_LE((logits - exact).abs().max().item<double>(), kTolerance) << "pieces of " << piece;
  }
  reference.texts[0].neighbours[0] = {};  // none given: CCA passes the chunk's span unchanged
  const at::Tensor none = TrainingLogits(foreign.config(), weights, reference.texts[0]);
  EXPECT_GT((none - exact).abs().max().item<double>(), 100 * kTolerance);
}

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
    named.reserve(tensors_.size());
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
  ASSERT_EQ(lucidrains.notes.size(), 1U);
  EXPECT_THAT(lucidrains.notes[0], HasSubstr("'decoder.rotary_pos_emb.inv_freq' and 1 other were dropped: a function"));
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
              HasSubstr("has no tensor 'decoder.layers.0.0.norm.weight'"));
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

// ---------------------------------------------------------------- files that torch.save writes

TEST(TorchArchiveTest, TensorsAndPlainValuesAreReadAndNothingRuns) {
  const auto archive = TorchArchive::Open(SourcePath("tests/goldens/foreign/torch_archive.pt"));
  ASSERT_TRUE(archive.ok()) << archive.status();
  const auto read = [&](const char* name) { return *(*archive)->Read(name); };
  EXPECT_EQ((*archive)->shapes().size(), 3U);
  EXPECT_TRUE(at::equal(read("plain"), at::arange(6, at::kFloat).view({2, 3})));
  EXPECT_TRUE(at::equal(read("nested.view"), at::tensor({1, 5, 2, 6, 3, 7}, at::kFloat).view({3, 2})));
  EXPECT_TRUE(at::equal(read("nested.deeper.halves"), at::tensor({1.0, -2.5, 96.0}, at::kFloat)));
  EXPECT_EQ((*archive)->facts().dump(),
            R"({"checkpoint_version":3.0,"args":{"swiglu":true,"layers":9,"eps":1e-05,"name":"tiny"}})");
  ASSERT_EQ((*archive)->notes().size(), 2U);
  EXPECT_THAT((*archive)->notes()[0], HasSubstr("'optimizer' was dropped"));
  EXPECT_THAT((*archive)->notes()[1], HasSubstr("'nested.deeper._extra_state' was dropped"));
  EXPECT_FALSE(fs::exists("torch-archive-was-run"));
}

// A storage may hold many tensors: of one of 32 bytes, those between a tensor's first element and its last are read.
TEST(TorchArchiveTest, OfAStorageOnlyWhatATensorSpansIsRead) {
  const auto archive = TorchArchive::Open(SourcePath("tests/goldens/foreign/torch_archive.pt"));
  ASSERT_TRUE(archive.ok()) << archive.status();
  const CountedTorchMemory memory;
  EXPECT_TRUE((*archive)->Read("plain").ok());
  EXPECT_EQ(memory.peak_bytes(), 24);
}

// ---------------------------------------------------------------- the files of a tensor-parallel training

// A copy of the two-rank folder that tests may damage.
class RankFolder {
 public:
  RankFolder() : path_(StrCat(::testing::TempDir(), "/ranks")) {
    fs::remove_all(path_);
    fs::copy(SourcePath("tests/goldens/foreign/instructretro_tp2"), path_, fs::copy_options::recursive);
  }

  std::string File(int rank) const { return StrCat(path_, "/release/mp_rank_0", rank, "/model_optim_rng.pt"); }
  const std::string& path() const { return path_; }

  // Replaces bytes that follow the name in a rank's pickle.
  void Patch(int rank, const std::string& after, const std::string& from, const std::string& to) const {
    std::string bytes = *ReadFile(File(rank));
    const size_t name = bytes.find(after);
    ASSERT_NE(name, std::string::npos);
    const size_t at = bytes.find(from, name);
    ASSERT_NE(at, std::string::npos);
    bytes.replace(at, to.size(), to);
    ASSERT_TRUE(WriteFileAtomically(File(rank), bytes).ok());
  }

  // What reading says, with `from` in the config replaced by `to`.
  std::string Says(const std::string& weights, const std::string& from = "", const std::string& to = "") const {
    const auto opened = ForeignModel::Open(**FindForeignFormat("instructretro"), Config(from, to), weights);
    if (!opened.ok()) return std::string(MessageOf(opened.status()));
    return std::string(MessageOf(opened->ReadAll().status()));
  }

  std::string Config(const std::string& from, const std::string& to) const {
    std::string config = *ReadFile(SourcePath("tests/goldens/foreign/instructretro_tp2.json"));
    config.replace(config.find(from), from.size(), to);
    EXPECT_TRUE(WriteFileAtomically(path_ + "/config.json", config).ok());
    return path_ + "/config.json";
  }

 private:
  std::string path_;
};

TEST(TensorParallelTest, WhatDoesNotGoTogetherIsNamed) {
  const RankFolder folder;
  EXPECT_EQ(folder.Says(folder.path()), "");
  EXPECT_THAT(folder.Says(folder.File(0)), HasSubstr("has shape"));  // half a model

  // Old checkpoints: 'checkpoint_version' is 3.0, a big-endian double.
  const std::string three("G\x40\x08", 3);
  const std::string one("G\x3f\xf0", 3);
  for (const int rank : {0, 1}) folder.Patch(rank, "checkpoint_version", three, one);
  EXPECT_THAT(folder.Says(folder.path()), HasSubstr("'checkpoint_version' below 2"));
  for (const int rank : {0, 1}) folder.Patch(rank, "checkpoint_version", one, three);

  // Without any, in a file that does not say it under that name.
  for (const int rank : {0, 1}) folder.Patch(rank, "", "checkpoint_version", "checkpoint_versiom");
  EXPECT_THAT(folder.Says(folder.path(), "\"checkpoint_version\"", "\"_version\""),
              HasSubstr("'checkpoint_version' is missing"));
  EXPECT_EQ(folder.Says(folder.path()), "");  // the config says it
  for (const int rank : {0, 1}) folder.Patch(rank, "", "checkpoint_versiom", "checkpoint_version");

  // The training's own arguments against the config: 4 heads.
  folder.Patch(0, "num_attention_heads", "K\x04", "K\x08");
  EXPECT_THAT(folder.Says(folder.path()),
              HasSubstr("'num_attention_heads' is 4, the checkpoint's own arguments say 8"));
  folder.Patch(0, "num_attention_heads", "K\x08", "K\x04");

  fs::remove_all(StrCat(folder.path(), "/release/mp_rank_01"));
  EXPECT_THAT(folder.Says(folder.path()), HasSubstr("has 1 ranks, its training had 2"));
  fs::rename(StrCat(folder.path(), "/release/mp_rank_00"), StrCat(folder.path(), "/release/mp_rank_00_000"));
  EXPECT_THAT(folder.Says(folder.path()), HasSubstr("'mp_rank_00_000' where rank 0 should be"));
  ASSERT_TRUE(WriteFileAtomically(StrCat(folder.path(), "/latest_checkpointed_iteration.txt"), "soon\n").ok());
  EXPECT_THAT(folder.Says(folder.path()), HasSubstr("says 'soon', neither release nor a number"));
}

TEST(TensorParallelTest, TheGateIsTheConfigsElseTheTrainingsElseOne) {
  const RankFolder folder;
  const auto open = [&](const std::string& from, const std::string& to) {
    return *ForeignModel::Open(**FindForeignFormat("instructretro"), folder.Config(from, to), folder.path());
  };
  const std::string key = "\"retro_attention_gate\"";
  const auto tells = Contains(HasSubstr("'retro_attention_gate' is not given"));
  const ForeignModel off = open(key + ": 1.0", key + ": 0.0");
  EXPECT_EQ(off.config().gate, 0.0);
  EXPECT_THAT(off.notes(), Not(tells));
  const ForeignModel neither = open(key, "\"_gate\"");
  EXPECT_EQ(neither.config().gate, 1.0);
  EXPECT_THAT(neither.notes(), tells);
}

TEST(TrainedNeighboursTest, AreTheConfigsElseTheCheckpointsElseTwo) {
  EXPECT_EQ(Open(kMegatron)->trained_neighbours(), 3);
  EXPECT_EQ(Open(kNorlund)->trained_neighbours(), 2);  // whose config does not say
  const std::string key = "\"retro_num_neighbors\": ";
  EXPECT_THAT(ConfigSays(kMegatron, key + "3", key + "0"), HasSubstr("0 neighbours a chunk, must be from 1 to 1024"));
  const std::string mask = SourcePath("tests/goldens/paper/paper_tiny_mask");
  const auto paper = ForeignModel::Open(**FindForeignFormat("paper"), mask + ".json", mask + ".weights.safetensors");
  EXPECT_EQ(paper->trained_neighbours(), 3);
  const RankFolder folder;
  const auto ranks =
      ForeignModel::Open(**FindForeignFormat("instructretro"), folder.Config(key + "2", key + "4"), folder.path());
  EXPECT_EQ(ranks->trained_neighbours(), 4);
}

// Norms are on every rank, and the same: here one rank's last bytes are another's.
TEST(TensorParallelTest, NormsThatDifferAreNamed) {
  const RankFolder folder;
  std::string bytes = *ReadFile(folder.File(1));
  const auto archive = TorchArchive::Open(folder.File(1));
  ASSERT_TRUE(archive.ok()) << archive.status();
  const std::string name = "language_model.encoder.final_norm.weight";
  const at::Tensor norm = (*(*archive)->Read(name)).to(at::kBFloat16).contiguous();
  const std::string stored(static_cast<const char*>(norm.const_data_ptr()), norm.nbytes());
  const size_t at = bytes.find(stored);
  ASSERT_NE(at, std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  ASSERT_TRUE(WriteFileAtomically(folder.File(1), bytes).ok());
  EXPECT_THAT(folder.Says(folder.path()), HasSubstr(StrCat("'", name, "' should be the same on all ranks")));
}

// Beside what it makes only one rank's part is held, as it is stored and as fp32.
TEST(TensorParallelTest, PartsAreMergedOneAfterTheOther) {
  const RankFolder folder;
  const auto merged = OpenTensorParallel(folder.path(), /*gated=*/true);
  ASSERT_TRUE(merged.ok()) << merged.status();
  int merges = 0;
  for (const auto& [name, shape] : (*merged)->shapes()) {
    if (!name.ends_with("embeddings.weight") && !name.ends_with("dense_h_to_4h.weight") &&
        !name.ends_with("dense.weight")) {
      continue;
    }
    if (name.find("position") != std::string::npos) continue;  // the same on all ranks
    const CountedTorchMemory memory;
    const int64_t bytes = (*merged)->Read(name)->nbytes();
    EXPECT_LE(memory.peak_bytes(), bytes + bytes / 2 + bytes / 4) << name;
    ++merges;
  }
  EXPECT_GE(merges, 3);
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
