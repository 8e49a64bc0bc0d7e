// Evaluation: bits are those of the training loss, intervals and filters are what they say, baselines remember.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include "generator_service/model/weights.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"
#include "trainer/batch.h"
#include "trainer/batch_forward.h"
#include "trainer/evaluation/bootstrap.h"
#include "trainer/evaluation/interpolation.h"
#include "trainer/evaluation/questions.h"
#include "trainer/evaluation/text_report.h"

namespace retro {
namespace {

using testing::DoubleNear;
using testing::HasSubstr;

class EvaluationTest : public testing::Test {
 protected:
  void SetUp() override {
    MakeTinyData(folder_ / "data", TinyTexts(30, 11));
    MakeTinyModelFolder(folder_ / "model", TinyTrainingConfig());
    auto opened = OpenEvaluatedModel(Options());
    ASSERT_TRUE(opened.ok()) << opened.status();
    evaluated_.emplace(*std::move(opened));
  }

  EvaluationOptions Options() const { return {.model = folder_ / "model", .data = folder_ / "data"}; }
  const DataSet& data() const { return *evaluated_->text.data; }

  static double Bits(const std::vector<ChunkScore>& scores) {
    double bits = 0;
    for (const ChunkScore& score : scores) bits += score.bits;
    return bits;
  }

  // A document of at least `chunks` full chunks with neighbours.
  uint64_t LongDocument(uint64_t chunks) const {
    for (uint64_t d = 0; d < data().header().documents; ++d) {
      if (data().text_tokens(d) >= chunks * kTinyChunk) return d;
    }
    ADD_FAILURE() << "no document is long enough";
    return 0;
  }

  TemporaryFolder folder_;
  std::optional<EvaluatedModel> evaluated_;
};

// The sum over one epoch in the documents' order: windows as long as the longest document, so that none is cut.
TEST_F(EvaluationTest, BitsAreThoseOfTheTrainingLoss) {
  const ModelConfig& config = evaluated_->info.config;
  const auto weights = *ReadCheckpointWeights(folder_ / "model", evaluated_->info);
  const ModelWeights bound = *BindWeights(config, weights);
  for (const int64_t k : {0, 2}) {
    BatchMaker maker(data(), k == 0 ? nullptr : evaluated_->text.table(), config,
                     {.windows = 1, .length = 64, .offset_share = 0, .no_retrieval_share = 0, .shuffle = false});
    const Batch batch = maker.Make(0);
    const c10::InferenceMode inference;
    const at::Tensor losses = at::cross_entropy_loss(BatchForward(bound, config, batch), batch.labels.flatten(), {},
                                                     at::Reduction::None, kIgnoredLabel);
    // The first document, without what stands for its eos.
    const auto text = static_cast<int64_t>(data().text_tokens(0));
    ASSERT_LE(text, 64);
    const double expected = losses.narrow(0, 0, text - 1).sum().item<double>() * std::numbers::log2e;
    const auto scores = ScoreDocument(*evaluated_, 0, {.k = k});
    ASSERT_TRUE(scores.ok()) << scores.status();
    EXPECT_THAT(Bits(*scores), DoubleNear(expected, 1e-3)) << "k " << k;
    const double first = losses.narrow(0, 0, kTinyChunk - 1).sum().item<double>() * std::numbers::log2e;
    EXPECT_THAT((*scores)[0].bits, DoubleNear(first, 1e-3)) << "of the first chunk, k " << k;
  }
}

TEST_F(EvaluationTest, BytesAreTheTextsButForItsFirstToken) {
  const auto scores = ScoreDocument(*evaluated_, 0, {.k = 2});
  uint64_t bytes = 0;
  for (const ChunkScore& score : *scores) bytes += score.bytes;
  std::vector<TokenId> tokens(data().text_tokens(0));
  data().CopyTokens(0, tokens.size(), tokens.data());
  EXPECT_EQ(bytes, evaluated_->tokenizer->Decode(std::span(tokens).subspan(1)).size());
  const auto cut = ScoreDocument(*evaluated_, LongDocument(3), {.k = 2, .tokens_max = kTinyChunk + 1});
  EXPECT_EQ(cut->size(), 2U);
}

TEST_F(EvaluationTest, FormsOfNeighbours) {
  const uint64_t chunk = data().first_chunk(LongDocument(3));
  const auto m = static_cast<int64_t>(kTinyChunk);
  const auto of = [&](NeighbourForm form) { return NeighboursOf(*evaluated_, chunk, {.k = 2, .form = form}); };
  const std::vector<TokenId> whole = of(NeighbourForm::kWhole).tokens;
  const std::vector<TokenId> alone = of(NeighbourForm::kAlone).tokens;
  const std::vector<TokenId> continuation = of(NeighbourForm::kContinuation).tokens;
  ASSERT_EQ(whole.size(), 2U * 2 * m);
  for (size_t i = 0; i < whole.size(); ++i) {
    const bool first_half = static_cast<int64_t>(i) % (2 * m) < m;
    EXPECT_EQ(alone[i], first_half ? whole[i] : 0) << i;
    EXPECT_EQ(continuation[i], first_half ? 0 : whole[i]) << i;
  }
  const ChunkNeighbours random = of(NeighbourForm::kRandom);
  EXPECT_EQ(random.count, 2);
  EXPECT_NE(random.tokens,
            NeighboursOf(*evaluated_, chunk, {.k = 2, .form = NeighbourForm::kRandom, .seed = 9}).tokens);
  // Each form gives other bits, and the bits without conditioning are others again.
  const uint64_t document = data().chunks()[chunk].document;
  std::vector<double> bits;
  for (const NeighbourForm form : {NeighbourForm::kWhole, NeighbourForm::kAlone, NeighbourForm::kContinuation}) {
    bits.push_back(Bits(*ScoreDocument(*evaluated_, document, {.k = 2, .form = form})));
  }
  bits.push_back(Bits(*ScoreDocument(*evaluated_, document, {.k = 0})));
  EvaluationOptions options = Options();
  options.conditioning = false;
  const auto unconditioned = OpenEvaluatedModel(options);
  ASSERT_TRUE(unconditioned.ok()) << unconditioned.status();
  bits.push_back(Bits(*ScoreDocument(*unconditioned, document, {.k = 2})));
  for (size_t i = 0; i < bits.size(); ++i) EXPECT_EQ(std::ranges::count(bits, bits[i]), 1) << i;
}

TEST_F(EvaluationTest, RefusesWhatItCannotScore) {
  const absl::Status status = ScoreDocument(*evaluated_, 0, {.k = 3}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("k 3 is more than the 2 neighbours"));
  EvaluationOptions options = Options();
  options.numbers = "fp8";
  EXPECT_TRUE(absl::IsInvalidArgument(OpenEvaluatedModel(options).status()));
}

TEST_F(EvaluationTest, Report) {
  const TextEvaluationOptions options = {.evaluated = Options(), .k = {0, 2}, .documents_max = 12};
  const auto documents = ScoreDocuments(*evaluated_, options, Quietly);
  ASSERT_TRUE(documents.ok()) << documents.status();
  const HeaderJson report = TextReport(*evaluated_, options, *documents);
  ASSERT_EQ(report["documents"].size(), 12U);
  EXPECT_EQ(report["model"]["revision"], evaluated_->info.revision);
  EXPECT_EQ(report["store"][0]["chunks"], data().header().chunks);
  double bits = 0;
  double bytes = 0;
  for (const HeaderJson& document : report["documents"]) {
    bits += document["bits"][1].get<double>();
    bytes += document["bytes"].get<double>();
  }
  const HeaderJson& run = report["runs"][1];
  EXPECT_THAT(run["bits_per_byte"]["value"].get<double>(), DoubleNear(bits / bytes, 1e-9));
  EXPECT_EQ(report["runs"][0]["to_no_retrieval"]["value"], 1.0);
  // More chunks pass a weaker filter, all of them the last.
  for (size_t i = 1; i < run["leakage"].size(); ++i) {
    EXPECT_GE(run["leakage"][i]["bytes"], run["leakage"][i - 1]["bytes"]);
  }
  EXPECT_EQ(run["leakage"].back()["bytes"].get<double>(), bytes);
  EXPECT_THAT(TextTable(report), HasSubstr("<= 12.5%"));
}

TEST(Evaluation, SourcesOfIds) {
  EXPECT_EQ(SourceOf("python-doc/library/gzip"), "python-doc");
  EXPECT_EQ(SourceOf("pep-0732"), "pep");
  EXPECT_EQ(SourceOf("plain"), "plain");
}

TEST(Evaluation, LongestCommonRuns) {
  const std::vector<TokenId> a = {5, 6, 7, 8, 0, 0, 9};
  EXPECT_EQ(LongestCommonRun(a, std::vector<TokenId>{1, 6, 7, 8, 5, 6}, 0), 3);
  EXPECT_EQ(LongestCommonRun(a, std::vector<TokenId>{8, 0, 0, 9}, 0), 1);  // pad is nothing in common
  EXPECT_EQ(LongestCommonRun(a, std::vector<TokenId>{1, 2}, 0), 0);
}

TEST(Evaluation, Intervals) {
  std::vector<RatioTerm> terms;
  for (int i = 0; i < 100; ++i) terms.push_back({i % 2 == 0 ? 1.0 : 3.0, 1.0});
  const Interval interval = BootstrapRatio(terms, 1);
  EXPECT_EQ(interval.value, 2.0);
  // A mean of 100 draws of 1 or 3 has a standard deviation of 0.1.
  EXPECT_THAT(interval.low, DoubleNear(2 - 0.196, 0.05));
  EXPECT_THAT(interval.high, DoubleNear(2 + 0.196, 0.05));
  const Interval one = BootstrapRatio(std::vector<RatioTerm>{{3, 2}}, 1);
  EXPECT_EQ(one.low, 1.5);
  EXPECT_EQ(one.high, 1.5);
  EXPECT_EQ(BootstrapRatio(std::vector<RatioTerm>{}, 1).value, 0);
}

TEST(Evaluation, MemoryGivesItsMassToWhatFollowed) {
  TokenMemory memory;
  const at::Tensor keys = at::eye(3) * 5;  // lengths are nothing to it
  memory.Append(keys, at::tensor({10, 11, 12}, at::kLong), 4);
  const TokenMemory::Query query = {.hidden = at::eye(3).narrow(0, 0, 2), .targets = at::tensor({10, 12}, at::kLong)};
  const at::Tensor all = memory.TargetMass(query, {1, 100});  // [sharpness, T]
  EXPECT_THAT(all[0][0].item<double>(), DoubleNear(std::exp(1) / (std::exp(1) + 2), 1e-6));
  EXPECT_THAT(all[1][0].item<double>(), DoubleNear(1, 1e-6));
  EXPECT_THAT(all[1][1].item<double>(), DoubleNear(0, 1e-6));
  TokenMemory::Query nearest = query;
  nearest.nearest = 1;
  EXPECT_EQ(memory.TargetMass(nearest, {1})[0][0].item<double>(), 1);
  TokenMemory::Query left_out = query;
  left_out.leave_out = 4;
  EXPECT_EQ(memory.TargetMass(left_out, {1}).abs().sum().item<double>(), 0);
  // Its own entries: the first query sees none, the second the one before it.
  TokenMemory own;
  own.Append(at::eye(2), at::tensor({7, 7}, at::kLong), -1);
  const at::Tensor seen =
      own.TargetMass({.hidden = at::eye(2), .targets = at::tensor({7, 7}, at::kLong), .newest_query = 2}, {1});
  EXPECT_EQ(seen[0][0].item<double>(), 0);
  EXPECT_EQ(seen[0][1].item<double>(), 1);
  own.KeepNewest(1);
  EXPECT_EQ(own.size(), 1);
}

// With the judged text itself as the store, but for its own document, and with text that repeats itself.
TEST_F(EvaluationTest, BaselinesLearnFromMemories) {
  const auto figures = EvaluateBaselines(
      *evaluated_, {.evaluated = Options(), .store = {folder_ / "data"}, .nearest = 16, .documents_max = 16}, Quietly);
  ASSERT_TRUE(figures.ok()) << figures.status();
  for (const char* name : {"knn_lm", "continuous_cache"}) {
    EXPECT_LT((*figures)[name]["to_model_alone"]["value"].get<double>(), 0.8) << name;
    EXPECT_EQ((*figures)[name]["documents"], 8);
  }
  EXPECT_GT((*figures)["knn_lm"]["store_tokens"].get<int64_t>(), 100);
}

TEST(Questions, AnswersAreComparedAsSquadDoes) {
  EXPECT_EQ(NormalisedAnswer(" The  Carolina-Panthers. "), "carolinapanthers");
  EXPECT_TRUE(ExactMatch("a DENVER Broncos!", {"Carolina", "the Denver Broncos"}));
  EXPECT_FALSE(ExactMatch("Denver", {"Denver Broncos"}));
  EXPECT_THAT(WordF1("Denver won", {"Denver Broncos"}), DoubleNear(0.5, 1e-9));
  EXPECT_EQ(WordF1("", {"308"}), 0);
}

TEST(Questions, MalformedLinesAreNamed) {
  TemporaryFolder folder;
  std::ofstream(folder / "q.jsonl") << R"({"question": "Who?", "answers": ["me"], "doc": "d#0"})"
                                    << "\n"
                                    << R"({"question": "Who?", "answers": []})"
                                    << "\n";
  const absl::Status status = ReadQuestions(folder / "q.jsonl").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("q.jsonl:2"));
}

}  // namespace
}  // namespace retro
