// Model folders: what is written is read back, and whatever is wrong with one is named.
#include "generator_service/checkpoints/checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "generator_service/checkpoints/random_init.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "generator_service/model/weight_table.h"
#include "generator_service/model/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/torch_memory.h"

namespace retro {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSeed = 7;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.width = 16;
  config.ffw_width = 24;
  config.heads = 2;
  config.head_size = 6;
  config.layers = 3;
  config.cca_layers = {2};
  config.encoder_width = 12;
  config.encoder_ffw_width = 20;
  config.encoder_heads = 3;
  config.encoder_head_size = 4;
  config.encoder_layers = 2;
  config.encoder_cca_layers = {1};
  config.vocabulary = 50;
  config.chunk_length = 4;
  config.neighbour_length = 8;
  config.max_length = 32;
  config.tied_readout = false;
  return config;
}

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = StrCat(::testing::TempDir(), "/checkpoint_test_",
                        ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
    info_.config = SmallConfig();
    weights_ = *RandomWeights(info_.config, kSeed);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Save() { ASSERT_TRUE(SaveCheckpoint(directory_, info_, weights_, "").ok()); }
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  // Replaces the weights behind the config's back and returns what loading says. The config then records no revision,
  // so that the tensors themselves are what is refused.
  absl::Status LoadWith(const WeightMap& weights) {
    Save();
    ForgetRevision();
    EXPECT_TRUE(WriteWeights(Path(kWeightsFileName), weights, {}).ok());
    return LoadModel(directory_, "cpu").status();
  }
  // Replaces the weights by these, in another dtype, and the config's revision by none.
  void SaveAs(DType dtype) const {
    const at::ScalarType type = dtype == DType::kF16 ? at::kHalf : dtype == DType::kBf16 ? at::kBFloat16 : at::kDouble;
    std::map<std::string, at::Tensor> converted;
    std::vector<NamedTensor> named;
    for (const auto& [name, weight] : weights_) {
      const at::Tensor& own = converted[name] = weight.to(type).contiguous();
      named.push_back(
          {name, {dtype, own.sizes().vec(), {static_cast<const char*>(own.const_data_ptr()), own.nbytes()}}});
    }
    ASSERT_TRUE(WriteSafetensors(Path(kWeightsFileName), named, {}).ok());
    ForgetRevision();
  }
  void ForgetRevision() const {
    std::string config = *ReadFile(Path(kConfigFileName));
    const size_t at = config.find("\"revision\"");
    if (at != std::string::npos) config.erase(at, config.find('\n', at) - at);
    EXPECT_TRUE(WriteFileAtomically(Path(kConfigFileName), config).ok());
  }
  static at::Tensor Logits(const RetroModel& model) {
    const std::unique_ptr<Sequence> sequence = *model.NewSequence({.retrieval = false});
    const std::vector<TokenId> tokens = {1, 2, 3, 4, 5};
    const std::vector<Piece> pieces = {{.sequence = sequence.get(), .tokens = tokens, .logit_rows = kAllRows}};
    return model.Forward(pieces)->at(0);
  }
  absl::Status LoadWithConfig(const std::string& config) {
    Save();
    EXPECT_TRUE(WriteFileAtomically(Path(kConfigFileName), config).ok());
    return LoadModel(directory_, "cpu").status();
  }

  std::string directory_;
  CheckpointInfo info_;
  WeightMap weights_;
};

void ExpectStatus(const absl::Status& status, absl::StatusCode code, const std::vector<std::string>& parts) {
  EXPECT_EQ(status.code(), code) << status;
  for (const std::string& part : parts) EXPECT_THAT(std::string(MessageOf(status)), HasSubstr(part));
}

TEST_F(CheckpointTest, RoundTrip) {
  info_.tokenizer_file = "tokenizer.model";
  info_.tokenizer_fingerprint = "0123";
  info_.embedder_fingerprint = "4567";
  info_.trained_neighbours = 5;
  const std::string tokenizer = StrCat(::testing::TempDir(), "/checkpoint_test.model");
  ASSERT_TRUE(WriteFileAtomically(tokenizer, "pieces").ok());
  const auto revision = SaveCheckpoint(directory_, info_, weights_, tokenizer);
  ASSERT_TRUE(revision.ok()) << revision.status();
  const auto info = ReadCheckpointInfo(directory_);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->config, info_.config);
  EXPECT_EQ(info->tokenizer_file, "tokenizer.model");
  EXPECT_EQ(info->tokenizer_fingerprint, "0123");
  EXPECT_EQ(info->embedder_fingerprint, "4567");
  EXPECT_EQ(info->trained_neighbours, 5);
  EXPECT_EQ(info->revision, *revision);
  EXPECT_EQ(*ReadFile(Path("tokenizer.model")), "pieces");
  const auto weights = ReadCheckpointWeights(directory_, *info);
  ASSERT_TRUE(weights.ok()) << weights.status();
  ASSERT_EQ(weights->size(), weights_.size());
  for (const auto& [name, tensor] : weights_) EXPECT_TRUE(at::equal(tensor, weights->at(name))) << name;
  EXPECT_TRUE(LoadModel(directory_, "cpu").ok());
}

TEST_F(CheckpointTest, TrainedNeighboursAreTwoWhereNothingSaysOtherwise) {
  Save();
  std::string json = *ReadFile(Path("config.json"));
  EXPECT_THAT(json, Not(HasSubstr("trained_neighbours")));  // which older programs would refuse
  EXPECT_EQ(ReadCheckpointInfo(directory_)->trained_neighbours, 2);
  for (const char* wrong : {"0", "1025", "\"2\"", "2.0"}) {
    const std::string changed = StrCat("{\"trained_neighbours\": ", wrong, ",", json.substr(json.find('{') + 1));
    ASSERT_TRUE(WriteFileAtomically(Path("config.json"), changed).ok());
    ExpectStatus(ReadCheckpointInfo(directory_).status(), absl::StatusCode::kInvalidArgument,
                 {"config.json", "'trained_neighbours' must be an integer from 1 to 1024"});
  }
}

TEST_F(CheckpointTest, RandomWeightsAreAFunctionOfTheSeed) {
  const auto same = *RandomWeights(info_.config, kSeed);
  const auto other = *RandomWeights(info_.config, kSeed + 1);
  const at::Tensor& query = weights_.at("decoder.1.attention.query");
  EXPECT_TRUE(at::equal(query, same.at("decoder.1.attention.query")));
  EXPECT_FALSE(at::equal(query, other.at("decoder.1.attention.query")));
  EXPECT_NEAR(query.std().item<double>(), 0.25, 0.05);  // 1 / sqrt(16)
  EXPECT_TRUE(at::equal(weights_.at("decoder.final_norm"), at::ones({16})));
}

TEST_F(CheckpointTest, MissingExtraAndMisshapenTensorsAreNamed) {
  WeightMap weights = weights_;
  weights.erase("decoder.2.cca.value");
  ExpectStatus(LoadWith(weights), absl::StatusCode::kInvalidArgument, {"decoder.2.cca.value", "model.safetensors"});
  weights = weights_;
  weights["decoder.4.ffw.up"] = at::zeros({2, 2});
  ExpectStatus(LoadWith(weights), absl::StatusCode::kInvalidArgument, {"decoder.4.ffw.up", "not part of the model"});
  weights = weights_;
  weights["decoder.2.ffw.up"] = weights["decoder.2.ffw.up"].t().contiguous();
  ExpectStatus(LoadWith(weights), absl::StatusCode::kInvalidArgument, {"decoder.2.ffw.up", "[16, 24]", "[24, 16]"});
}

TEST_F(CheckpointTest, NanAndInfinityAreNamed) {
  for (const double value : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    WeightMap weights = weights_;
    weights["encoder.1.ffw.down"] = weights["encoder.1.ffw.down"].clone();
    weights["encoder.1.ffw.down"][3][5] = value;
    ExpectStatus(LoadWith(weights), absl::StatusCode::kInvalidArgument, {"encoder.1.ffw.down", "NaN or infinity"});
  }
}

TEST_F(CheckpointTest, AFlippedWeightIsFoundByTheRevision) {
  Save();
  std::string bytes = *ReadFile(Path(kWeightsFileName));
  bytes[bytes.size() - 4] ^= 1;
  ASSERT_TRUE(WriteFileAtomically(Path(kWeightsFileName), bytes).ok());
  ExpectStatus(LoadModel(directory_, "cpu").status(), absl::StatusCode::kFailedPrecondition,
               {"model.safetensors", "SHA-256"});
}

TEST_F(CheckpointTest, AFailedReplacementLeavesTheOldModel) {
  Save();
  const std::string old = ReadCheckpointInfo(directory_)->revision;
  weights_ = *RandomWeights(info_.config, kSeed + 1);
  // The weights find room, the config none, under whatever name it is first written.
  for (const char* taken : {"config.json.tmp", "config.json.next.tmp"}) std::filesystem::create_directory(Path(taken));
  ASSERT_FALSE(SaveCheckpoint(directory_, info_, weights_, "").ok());
  EXPECT_EQ(ReadCheckpointInfo(directory_)->revision, old);
  const absl::Status loaded = LoadModel(directory_, "cpu").status();
  EXPECT_TRUE(loaded.ok()) << loaded;
}

// Every point at which a writer of another model, with another tokenizer, may be cut.
TEST_F(CheckpointTest, ACutReplacementLeavesTheOldModelOrTheNew) {
  info_.tokenizer_file = "tokenizer.model";
  const std::string tokenizer = StrCat(::testing::TempDir(), "/checkpoint_test_cut.model");
  ASSERT_TRUE(WriteFileAtomically(tokenizer, "old pieces").ok());
  const std::string old = *SaveCheckpoint(directory_, info_, weights_, tokenizer);
  const std::string other = Path("other");
  ASSERT_TRUE(WriteFileAtomically(tokenizer, "new pieces").ok());
  info_.config.layers = 4;
  const std::string revision = *SaveCheckpoint(other, info_, *RandomWeights(info_.config, kSeed), tokenizer);
  const auto expect = [&](const std::string& expected, const std::string& pieces) {
    const auto loaded = LoadModel(directory_, "cpu");
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->info.revision, expected);
    EXPECT_EQ(*ReadFile(ModelFilePath(directory_, "tokenizer.model")), pieces);
  };
  for (const std::string name : {"tokenizer.model", kWeightsFileName}) {
    std::filesystem::copy_file(other + "/" + name, Path(name + ".next"));
    expect(old, "old pieces");
  }
  std::filesystem::copy_file(other + "/" + kConfigFileName, Path("config.json.next"));
  expect(revision, "new pieces");
  for (const std::string name : {"tokenizer.model", kWeightsFileName}) {
    std::filesystem::rename(Path(name + ".next"), Path(name));
    expect(revision, "new pieces");
  }
  std::filesystem::copy_file(other + "/" + kConfigFileName, Path(kConfigFileName),
                             std::filesystem::copy_options::overwrite_existing);
  expect(revision, "new pieces");
  // The next writer clears up, and takes the tokenizer from wherever the folder has it.
  const auto again = SaveCheckpoint(directory_, info_, *RandomWeights(info_.config, kSeed + 2),
                                    ModelFilePath(directory_, "tokenizer.model"));
  ASSERT_TRUE(again.ok()) << again.status();
  expect(*again, "new pieces");
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    EXPECT_NE(entry.path().extension(), ".next") << entry.path();
  }
}

TEST_F(CheckpointTest, HalfPrecisionWeightsAreRead) {
  Save();
  const SafetensorsFile file = *SafetensorsFile::Open(Path(kWeightsFileName));
  const at::Tensor half = weights_.at("decoder.embedding").to(at::kHalf);
  const NamedTensor named{"decoder.embedding",
                          {DType::kF16, {50, 16}, {static_cast<const char*>(half.const_data_ptr()), half.nbytes()}}};
  const std::string path = Path("half.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, {&named, 1}, {}).ok());
  const auto read = ReadWeight(*SafetensorsFile::Open(path), "decoder.embedding", std::vector<int64_t>{50, 16});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(*read, half.to(at::kFloat)));
}

// Of a folder in half precision no more than one matrix is held as fp32 at a time, and the model is the same.
TEST_F(CheckpointTest, HalfPrecisionFoldersAreTakenOverMatrixByMatrix) {
  info_.config.layers = 12;
  info_.config.width = 64;
  weights_ = *RandomWeights(info_.config, kSeed);
  for (auto& [name, weight] : weights_) weight = weight.to(at::kHalf).to(at::kFloat);
  Save();
  const ModelOptions options{.numbers = ModelNumbers::kFp16};
  const auto reference = LoadModel(directory_, "cpu", options);
  ASSERT_TRUE(reference.ok()) << reference.status();
  int64_t all = 0;
  int64_t largest = 0;
  for (const auto& [name, weight] : weights_) {
    all += static_cast<int64_t>(weight.nbytes());
    largest = std::max(largest, static_cast<int64_t>(weight.nbytes()));
  }
  for (const DType dtype : {DType::kF16, DType::kBf16}) {
    SaveAs(dtype);
    const CountedTorchMemory memory;
    const auto loaded = LoadModel(directory_, "cpu", options);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_LT(memory.peak_bytes(), all / 4);
    EXPECT_GE(memory.peak_bytes(), largest);
    const bool same = at::equal(Logits(*loaded->model), Logits(*reference->model));
    EXPECT_TRUE(same || dtype == DType::kBf16);
    const auto weights = ReadCheckpointWeights(directory_, loaded->info);
    ASSERT_TRUE(weights.ok()) << weights.status();
    for (const auto& [name, weight] : *weights) EXPECT_EQ(weight.scalar_type(), at::kFloat) << name;
  }
}

TEST_F(CheckpointTest, NanAndInfinityInHalfPrecisionAreNamed) {
  for (const DType dtype : {DType::kF16, DType::kBf16, DType::kF64}) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      weights_ = *RandomWeights(info_.config, kSeed);
      Save();
      weights_.at("decoder.embedding")[3][2] = bad;
      SaveAs(dtype);
      ExpectStatus(LoadModel(directory_, "cpu").status(), absl::StatusCode::kInvalidArgument,
                   {"decoder.embedding", "NaN or infinity"});
    }
  }
}

TEST_F(CheckpointTest, BadConfigsAreNamed) {
  ExpectStatus(LoadModel(directory_, "cpu").status(), absl::StatusCode::kNotFound, {"no model folder", "retro-model"});
  ExpectStatus(LoadWithConfig("{"), absl::StatusCode::kInvalidArgument, {"config.json"});
  ExpectStatus(LoadWithConfig(R"({"format": "other"})"), absl::StatusCode::kInvalidArgument, {"config.json"});
  ExpectStatus(LoadWithConfig(R"({"format": "retro-model", "format_version": 2})"),
               absl::StatusCode::kFailedPrecondition, {"config.json", "version 2"});
  ExpectStatus(LoadWithConfig(R"({"format": "retro-model", "format_version": 1, "modle": {}})"),
               absl::StatusCode::kInvalidArgument, {"unknown key 'modle'"});
  ExpectStatus(LoadWithConfig(R"({"format": "retro-model", "format_version": 1, "model": {"width": "8"}})"),
               absl::StatusCode::kInvalidArgument, {"width must be an integer"});
  ExpectStatus(
      LoadWithConfig(R"({"format": "retro-model", "format_version": 1, "model": {}, "tokenizer_file": "../../x"})"),
      absl::StatusCode::kInvalidArgument, {"model config"});
}

TEST_F(CheckpointTest, UnknownDevicesAreRefused) {
  Save();
  EXPECT_FALSE(LoadModel(directory_, "abacus").ok());
}

}  // namespace
}  // namespace retro
