// Training on the model that serves: the same logits, gradients as finite differences have them, runs that go on to the
// same curve after a kill.
#include "trainer/training.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "generator_service/model/model.h"
#include "generator_service/model/weight_table.h"
#include "generator_service/model/weights.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"
#include "trainer/batch_forward.h"
#include "trainer/event_file.h"
#include "trainer/train_checkpoint.h"

namespace retro {
namespace {

using testing::HasSubstr;

constexpr int64_t kLength = 32;  // of a window

class TrainingTest : public testing::Test {
 protected:
  void SetUp() override {
    MakeTinyData(folder_ / "data", TinyTexts(80, 11));
    MakeTinyData(folder_ / "validation", TinyTexts(40, 12));
    MakeTinyModelFolder(folder_ / "start", config_);
    data_.emplace(*DataSet::Open(folder_ / "data"));
    table_.emplace(*NeighbourTable::Open(folder_ / "data", *data_));
  }

  WeightMap Weights(at::ScalarType type) const {
    WeightMap weights;
    const WeightMap random = *RandomWeights(config_, 5);
    for (const auto& [name, tensor] : random) {
      // Gains and biases of their own, so that each weight matters.
      const at::Tensor moved = tensor.dim() == 1 ? tensor + 0.1 * at::arange(tensor.size(0)).cos() : tensor * 2;
      weights.emplace(name, moved.to(type).requires_grad_(true));
    }
    return weights;
  }

  Batch MakeBatch(double offset_share, uint64_t number = 0, int64_t windows = 4) const {
    BatchMaker maker(*data_, &*table_, config_,
                     {.windows = windows, .length = kLength, .offset_share = offset_share, .no_retrieval_share = 0.2});
    return maker.Make(number);
  }

  at::Tensor Loss(const WeightMap& weights, const Batch& batch, bool recompute = false) const {
    const absl::StatusOr<ModelWeights> bound = BindWeights(config_, weights);
    return SummedLoss(BatchForward(*bound, config_, batch, {.recompute = recompute}), batch);
  }

  TrainingOptions Options(const std::string& out) const {
    TrainingOptions options;
    options.model = folder_ / "start";
    options.data = folder_ / "data";
    options.validation = folder_ / "validation";
    options.out = folder_ / out;
    options.batch = {.windows = 1, .length = kLength, .offset_share = 0.5};
    options.accumulation = 2;
    options.optimiser = {.learning_rate = 3e-3, .warmup_steps = 5, .steps = 50};
    options.log_steps = 1;
    options.checkpoint_steps = 20;
    options.validation_steps = 25;
    options.validation_batches = 2;
    return options;
  }

  // Losses by step, as the curve has them.
  static std::vector<std::string> Losses(const std::string& out) {
    std::vector<std::string> losses;
    std::istringstream lines(*ReadFile(out + "/curve.csv"));
    for (std::string line; std::getline(lines, line);)
      losses.push_back(line.substr(0, line.find(',', line.find(',', line.find(',') + 1) + 1)));
    return losses;
  }

  const ModelConfig config_ = TinyTrainingConfig();
  TemporaryFolder folder_;
  std::optional<DataSet> data_;
  std::optional<NeighbourTable> table_;
};

// Each segment of each window by itself, through the caches of the model that serves, with the neighbours of its
// chunks.
TEST_F(TrainingTest, LogitsAreThoseOfTheServedModel) {
  const WeightMap weights = Weights(at::kFloat);
  WeightMap plain;
  for (const auto& [name, weight] : weights) plain.emplace(name, weight.detach());
  const auto model = RetroModel::Create(config_, plain, "cpu");
  ASSERT_TRUE(model.ok()) << model.status();
  int64_t offsets = 0;
  int64_t with_neighbours = 0;
  for (uint64_t number = 0; number < 6; ++number) {
    const Batch batch = MakeBatch(/*offset_share=*/0.7, number);
    const c10::InferenceMode inference;
    const at::Tensor logits = BatchForward(*BindWeights(config_, weights), config_, batch).view({4, kLength, -1});
    const int64_t chunks = batch.neighbours.defined() ? batch.chunk_rows.size(0) / kTinyChunk : 0;
    for (int64_t b = 0; b < 4; ++b) {
      for (int64_t begin = 0; begin < kLength;) {
        int64_t end = begin;
        while (end < kLength && batch.segments[b][end].equal(batch.segments[b][begin])) ++end;
        // The chunks whose last row lies in this segment, by that row.
        std::map<int64_t, ChunkNeighbours> by_end;
        int64_t offset = 0;
        for (int64_t c = 0; c < chunks; ++c) {
          const int64_t last = batch.chunk_rows[(c + 1) * kTinyChunk - 1].item<int64_t>() - b * kLength;
          if (last < begin || last >= end) continue;
          if (begin == 0) offset = (last + 1) % kTinyChunk;
          const at::Tensor rows = batch.neighbours.narrow(0, 2 * c, 2).to(at::kInt).contiguous();
          by_end[last + 1 - begin] = {2,
                                      {rows.const_data_ptr<int32_t>(), rows.const_data_ptr<int32_t>() + rows.numel()}};
          ++with_neighbours;
        }
        offsets += offset > 0 ? 1 : 0;
        const auto sequence = (*model)->NewSequence({.offset = offset});
        std::vector<ChunkNeighbours> neighbours((*sequence)->ChunksCompletedBy(end - begin));
        for (size_t u = 0; u < neighbours.size(); ++u) {
          neighbours[u] = by_end[(*sequence)->geometry().End(static_cast<int64_t>(u))];
        }
        const at::Tensor ids = batch.tokens[b].slice(0, begin, end).to(at::kInt).contiguous();
        const std::vector<TokenId> tokens(ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + ids.numel());
        const Piece piece = {
            .sequence = sequence->get(), .tokens = tokens, .neighbours = neighbours, .logit_rows = kAllRows};
        const auto served = (*model)->Forward({&piece, 1});
        ASSERT_TRUE(served.ok()) << served.status();
        ASSERT_LT((logits[b].slice(0, begin, end) - (*served)[0]).abs().max().item<float>(), 1e-4)
            << "batch " << number << ", window " << b << ", rows " << begin << " to " << end;
        begin = end;
      }
    }
  }
  EXPECT_GT(offsets, 0);
  EXPECT_GT(with_neighbours, 20);
}

TEST_F(TrainingTest, GradientsAreThoseOfFiniteDifferences) {
  const WeightMap weights = Weights(at::kDouble);
  const Batch batch = MakeBatch(/*offset_share=*/1, /*number=*/1, /*windows=*/2);
  ASSERT_TRUE(batch.neighbours.defined());
  Loss(weights, batch).backward();
  const at::NoGradGuard no_grad;
  const at::Tensor seen = std::get<0>(at::_unique(batch.tokens));
  for (const WeightSpec& spec : WeightTable(config_)) {
    at::Tensor weight = weights.at(spec.name);
    const at::Tensor flat = weight.view({-1});
    for (int64_t probe = 0; probe < 2; ++probe) {
      int64_t place = (probe * 7919 + 13) % flat.size(0);
      if (spec.kind == WeightKind::kEmbedding) place = seen[probe].item<int64_t>() * spec.shape[1] + probe;
      const double kept = flat[place].item<double>();
      const double step = 1e-5;
      flat[place].fill_(kept + step);
      const double above = Loss(weights, batch).item<double>();
      flat[place].fill_(kept - step);
      const double below = Loss(weights, batch).item<double>();
      flat[place].fill_(kept);
      const double expected = (above - below) / (2 * step);
      const double found = weight.grad().view({-1})[place].item<double>();
      EXPECT_NEAR(found, expected, 1e-5 * std::max(1.0, std::abs(expected))) << spec.name << "[" << place << "]";
    }
  }
}

TEST_F(TrainingTest, RecomputedActivationsGiveTheSameGradients) {
  const Batch batch = MakeBatch(0.7);
  const WeightMap held = Weights(at::kDouble);
  const WeightMap recomputed = Weights(at::kDouble);
  Loss(held, batch).backward();
  Loss(recomputed, batch, /*recompute=*/true).backward();
  for (const auto& [name, weight] : held) {
    ASSERT_TRUE(recomputed.at(name).grad().defined()) << name;
    EXPECT_TRUE(at::allclose(weight.grad(), recomputed.at(name).grad(), 1e-10, 1e-12)) << name;
  }
}

TEST_F(TrainingTest, ResumesToTheSameCurve) {
  TrainingOptions whole = Options("whole");
  whole.accumulation = 1;
  ASSERT_EQ(Train(whole, Quietly), absl::OkStatus());
  TrainingOptions killed = whole;
  killed.out = folder_ / "killed";
  // Killed between two checkpoints: what came after the last one is lost and done again.
  const auto kill_at = [](const std::string& line) {
    if (line.starts_with("step 33 ")) throw std::runtime_error("killed");
  };
  EXPECT_THROW(std::ignore = Train(killed, kill_at), std::runtime_error);
  ASSERT_EQ(Train(killed, Quietly), absl::OkStatus());
  const std::vector<std::string> expected = Losses(whole.out);
  ASSERT_EQ(expected.size(), 51U);
  EXPECT_EQ(Losses(killed.out), expected);
  EXPECT_EQ(ReadCheckpointInfo(killed.out + "/model")->revision, ReadCheckpointInfo(whole.out + "/model")->revision);
  EXPECT_TRUE(LoadModel(whole.out + "/model", "cpu").ok());
  // The text is learnt.
  const auto loss = [&](size_t row) { return std::stod(expected[row].substr(expected[row].rfind(',') + 1)); };
  EXPECT_LT(loss(50), loss(1) - 2);
}

// Frames and fields as TensorBoard has them, of the same rows as the CSV; a run that goes on leaves nothing twice.
TEST_F(TrainingTest, CurveIsWrittenAsEvents) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283);
  TrainingOptions options = Options("run");
  options.optimiser.steps = 6;
  options.checkpoint_steps = 2;
  const auto kill_at = [](const std::string& line) {
    if (line.starts_with("step 5 ")) throw std::runtime_error("killed");
  };
  EXPECT_THROW(std::ignore = Train(options, kill_at), std::runtime_error);
  ASSERT_EQ(Train(options, Quietly), absl::OkStatus());
  const std::string file = *ReadFile(options.out + "/" + kEventFileName);
  const auto word = [&](size_t place) {
    uint32_t value = 0;
    std::memcpy(&value, file.data() + place, sizeof value);
    return value;
  };
  const auto masked = [](std::string_view bytes) { return std::rotr(Crc32c(bytes), 15) + 0xa282ead8; };
  std::vector<std::string> events;
  for (size_t place = 0; place < file.size();) {
    const uint32_t size = word(place);
    ASSERT_LE(place + 16 + size, file.size());
    EXPECT_EQ(word(place + 8), masked({file.data() + place, 8}));
    events.push_back(file.substr(place + 12, size));
    EXPECT_EQ(word(place + 12 + size), masked(events.back()));
    place += 16 + size;
  }
  ASSERT_EQ(events.size(), 7U);
  EXPECT_THAT(events[0], HasSubstr("brain.Event:2"));
  for (int step = 1; step <= 6; ++step) {
    EXPECT_EQ(events[step].substr(9, 2), std::string("\x10") + static_cast<char>(step));  // field 2
    const size_t tag = events[step].find("\x0a\x04loss\x15");                             // name, fixed32
    ASSERT_NE(tag, std::string::npos);
    float loss = 0;
    std::memcpy(&loss, events[step].data() + tag + 7, sizeof loss);
    const std::string row = Losses(options.out)[step];
    EXPECT_FLOAT_EQ(loss, std::stof(row.substr(row.rfind(',') + 1)));
  }
}

TEST_F(TrainingTest, AccumulationIsALargerBatch) {
  TrainingOptions parts = Options("parts");
  parts.optimiser.steps = 3;
  TrainingOptions whole = parts;
  whole.out = folder_ / "whole";
  std::swap(whole.batch.windows, whole.accumulation);
  ASSERT_EQ(Train(parts, Quietly), absl::OkStatus());
  ASSERT_EQ(Train(whole, Quietly), absl::OkStatus());
  const auto last = [](const std::string& out) {
    const std::string row = Losses(out).back();
    return std::stod(row.substr(row.rfind(',') + 1));
  };
  EXPECT_NEAR(last(parts.out), last(whole.out), 1e-5);
}

TEST_F(TrainingTest, AnotherRunsCheckpointIsRefused) {
  TrainingOptions options = Options("run");
  options.optimiser.steps = 2;
  ASSERT_EQ(Train(options, Quietly), absl::OkStatus());
  options.batch.seed = 9;
  EXPECT_TRUE(absl::IsFailedPrecondition(Train(options, Quietly)));
  options.batch.seed = 1;
  // Other neighbours of the same text: numbers are told apart, not only the databases.
  const std::string neighbours = *ReadFile(options.data + "/" + kNeighboursName);
  std::string swapped = neighbours;
  std::swap_ranges(swapped.begin(), swapped.begin() + 4, swapped.begin() + 4);
  ASSERT_NE(swapped, neighbours);
  ASSERT_TRUE(WriteFileAtomically(options.data + "/" + kNeighboursName, swapped).ok());
  EXPECT_THAT(std::string(Train(options, Quietly).message()), HasSubstr("with other data"));
  ASSERT_TRUE(WriteFileAtomically(options.data + "/" + kNeighboursName, neighbours).ok());
  ModelConfig other = config_;
  other.layers = 4;
  MakeTinyModelFolder(folder_ / "other", other);
  options.model = folder_ / "other";
  const absl::Status config = Train(options, Quietly);
  EXPECT_TRUE(absl::IsFailedPrecondition(config));
  EXPECT_THAT(std::string(config.message()), HasSubstr("with other config"));
  // Its weights alone are a start like any other.
  options.model = options.out + "/model";
  options.out = folder_ / "second";
  EXPECT_EQ(Train(options, Quietly), absl::OkStatus());
}

TEST_F(TrainingTest, TheModelSaysHowManyNeighboursItHasRead) {
  for (const int64_t k : {1, 3}) {  // of the table's two
    TrainingOptions options = Options(StrCat("run", k));
    options.optimiser.steps = 1;
    options.batch.k = k;
    ASSERT_EQ(Train(options, Quietly), absl::OkStatus());
    EXPECT_EQ(ReadCheckpointInfo(options.out + "/model")->trained_neighbours, std::min<int64_t>(k, 2));
  }
}

TEST_F(TrainingTest, NonFiniteLossStopsAndSaysWhere) {
  TrainingOptions options = Options("run");
  options.optimiser.steps = 3;
  ASSERT_EQ(Train(options, Quietly), absl::OkStatus());
  const std::string good = *ReadFile(options.out + "/model/model.safetensors");
  const auto info = ReadCheckpointInfo(options.out + "/model");
  auto weights = *ReadCheckpointWeights(options.out + "/model", *info);
  for (const char* name : {"decoder.2.ffw.down", "decoder.2.ffw.up"}) weights.at(name) = weights.at(name) * 1e38;
  ASSERT_TRUE(SaveCheckpoint(folder_ / "huge", *info, weights, "").ok());
  options.model = folder_ / "huge";
  options.out = folder_ / "broken";
  const absl::Status status = Train(options, Quietly);
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("at step 1 (windows 0 to 1)"));
  EXPECT_FALSE(std::filesystem::exists(options.out + "/checkpoint.safetensors"));
}

TEST_F(TrainingTest, FullDiskLeavesTheOldCheckpoint) {
  const WeightMap weights = Weights(at::kFloat);
  Optimiser optimiser(config_, weights, {});
  ASSERT_TRUE(WriteTrainCheckpoint(folder_.path(), {}, weights, optimiser, 7).ok());
  const std::string old = *ReadFile(folder_ / kCheckpointName);
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {.rlim_cur = 1 << 16, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = WriteTrainCheckpoint(folder_.path(), {}, weights, optimiser, 8);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(*ReadFile(folder_ / kCheckpointName), old);
  EXPECT_EQ(*ReadTrainCheckpoint(folder_.path(), {}, weights, optimiser), 7);
}

TEST_F(TrainingTest, HalfPrecisionIsNearlyTheSame) {
  const Batch batch = MakeBatch(0);
  WeightMap weights = *RandomWeights(config_, 5);
  const double exact = Loss(weights, batch).item<double>();
  for (auto& [name, weight] : weights) {
    if (weight.dim() == 2 && !name.ends_with(".position")) weight = weight.to(at::kBFloat16);
  }
  EXPECT_NEAR(Loss(weights, batch).item<double>() / exact, 1.0, 0.01);
}

}  // namespace
}  // namespace retro
