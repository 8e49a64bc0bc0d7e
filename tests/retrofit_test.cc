// RETROfit: CCA and encoder learn, the decoder that was there stays, bit for bit.
#include "trainer/retrofit.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/model/model.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"
#include "trainer/training.h"

namespace retro {
namespace {

using testing::HasSubstr;

constexpr int64_t kSteps = 30;

class RetrofitTest : public testing::Test {
 protected:
  void SetUp() override {
    MakeTinyData(folder_ / "data", TinyTexts(80, 11));
    MakeTinyData(folder_ / "validation", TinyTexts(40, 12));
    ModelConfig plain = config_;
    plain.cca_layers.clear();
    plain.encoder_cca_layers.clear();
    plain.encoder_width = plain.encoder_ffw_width = plain.encoder_heads = 0;
    plain.encoder_head_size = plain.encoder_layers = 0;
    plain.shared_embedding = false;
    MakeTinyModelFolder(folder_ / "plain", plain);
    WriteConfig(config_);
  }

  void WriteConfig(const ModelConfig& config) const {
    ASSERT_TRUE(WriteFileAtomically(folder_ / "config.json", ModelConfigToJson(config)).ok());
  }

  RetrofitOptions Start() const {
    return {.plain = folder_ / "plain",
            .config = folder_ / "config.json",
            .data = folder_ / "data",
            .out = folder_ / "start",
            .length = 32,
            .seed = 4};
  }

  TrainingOptions Options() const {
    TrainingOptions options;
    options.model = folder_ / "start";
    options.data = folder_ / "data";
    options.validation = folder_ / "validation";
    options.out = folder_ / "out";
    options.batch = {.windows = 2, .length = 32, .no_retrieval_share = 0.3};
    options.optimiser = {.learning_rate = 1e-2, .warmup_steps = 3, .steps = kSteps};
    options.trained = Trained::kRetrieval;
    options.log_steps = options.validation_steps = kSteps;
    return options;
  }

  // Logits of a fixed text without retrieval, in the reference numbers.
  static at::Tensor LogitsOff(const std::string& model_folder) {
    const auto loaded = LoadModel(model_folder, "cpu");
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    const auto sequence = loaded->model->NewSequence({.retrieval = false});
    std::vector<TokenId> tokens(40);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(300 + 37 * i);
    const Piece piece = {.sequence = sequence->get(), .tokens = tokens, .logit_rows = kAllRows};
    return (*loaded->model->Forward({&piece, 1}))[0];
  }

  const ModelConfig config_ = TinyTrainingConfig();
  TemporaryFolder folder_;
};

TEST_F(RetrofitTest, WithoutNeighboursTheModelStaysTheSameBitForBit) {
  const at::Tensor plain = LogitsOff(folder_ / "plain");
  const auto weights_of = [&](const std::string& name) {
    return *ReadCheckpointWeights(folder_ / name, *ReadCheckpointInfo(folder_ / name));
  };
  for (const NewWeights new_weights : {NewWeights::kCopying, NewWeights::kRandom}) {
    const std::string out = new_weights == NewWeights::kCopying ? "copying" : "random";
    RetrofitOptions start = Start();
    start.new_weights = new_weights;
    ASSERT_EQ(WriteRetrofitStart(start), absl::OkStatus());
    TrainingOptions options = Options();
    options.out = folder_ / out;
    ASSERT_EQ(Train(options, Quietly), absl::OkStatus());
    EXPECT_TRUE(LogitsOff(folder_ / "start").equal(plain)) << out;
    EXPECT_TRUE(LogitsOff(options.out + "/model").equal(plain)) << out;
    // What was to learn has: all of CCA and encoder but the shared embedding.
    const auto before = weights_of("start");
    for (const auto& [name, after] : weights_of(out + "/model")) {
      EXPECT_EQ(after.equal(before.at(name)), !ServesRetrieval(name)) << out << " " << name;
    }
  }
}

TEST_F(RetrofitTest, AStartThatIsThereIsKeptUnlessOptionsAreOthers) {
  ASSERT_EQ(WriteRetrofitStart(Start()), absl::OkStatus());
  const std::string weights = folder_ / "start/model.safetensors";
  const auto written = std::filesystem::last_write_time(weights);
  ASSERT_EQ(WriteRetrofitStart(Start()), absl::OkStatus());
  EXPECT_EQ(std::filesystem::last_write_time(weights), written);
  const std::string revision = ReadCheckpointInfo(folder_ / "start")->revision;
  RetrofitOptions other = Start();
  other.seed = 5;
  ASSERT_EQ(WriteRetrofitStart(other), absl::OkStatus());
  EXPECT_NE(ReadCheckpointInfo(folder_ / "start")->revision, revision);
  ASSERT_EQ(WriteRetrofitStart(Start()), absl::OkStatus());
  EXPECT_EQ(ReadCheckpointInfo(folder_ / "start")->revision, revision);
}

TEST_F(RetrofitTest, AllWeightsGoOnFromWhatWasFitted) {
  ASSERT_EQ(WriteRetrofitStart(Start()), absl::OkStatus());
  ASSERT_EQ(Train(Options(), Quietly), absl::OkStatus());
  TrainingOptions all = Options();
  all.trained = Trained::kAll;
  EXPECT_TRUE(absl::IsFailedPrecondition(Train(all, Quietly)));  // another run than the one in the folder
  all.model = folder_ / "out/model";
  all.out = folder_ / "all";
  ASSERT_EQ(Train(all, Quietly), absl::OkStatus());
  EXPECT_FALSE(LogitsOff(folder_ / "all/model").equal(LogitsOff(folder_ / "plain")));
}

TEST_F(RetrofitTest, AStepWithoutNeighboursTeachesNothing) {
  ASSERT_EQ(WriteRetrofitStart(Start()), absl::OkStatus());
  TrainingOptions options = Options();
  options.batch.no_retrieval_share = 1;
  options.optimiser.weight_decay = 0;
  ASSERT_EQ(Train(options, Quietly), absl::OkStatus());
  EXPECT_EQ(ReadCheckpointInfo(options.out + "/model")->revision, ReadCheckpointInfo(options.model)->revision);
}

TEST_F(RetrofitTest, AnotherDecodersConfigIsRefused) {
  ModelConfig other = config_;
  other.ffw_width = 48;
  WriteConfig(other);
  const absl::Status status = WriteRetrofitStart(Start());
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("'ffw_width' is 48, but 32"));
  WriteConfig(config_);
  RetrofitOptions twice = Start();
  twice.out = folder_ / "once";
  ASSERT_EQ(WriteRetrofitStart(twice), absl::OkStatus());
  twice.plain = twice.out;
  EXPECT_TRUE(absl::IsInvalidArgument(WriteRetrofitStart(twice)));
}

}  // namespace
}  // namespace retro
