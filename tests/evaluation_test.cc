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

TEST(Evaluation, FamiliesAreDrawnTogether) {
  // Ten families of ten equal versions are ten texts, not a hundred.
  std::vector<RatioTerm> versions, families;
  versions.reserve(100);
  families.reserve(10);
  const std::vector<std::string> names = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"};
  for (size_t i = 0; i < 100; ++i) versions.push_back({i % 2 == 0 ? 1.0 : 3.0, 1.0, names[i % 10]});
  for (size_t i = 0; i < 10; ++i) families.push_back({i % 2 == 0 ? 10.0 : 30.0, 10.0});
  const Interval of_versions = BootstrapRatio(versions, 1);
  const Interval of_families = BootstrapRatio(families, 1);
  EXPECT_EQ(of_versions.low, of_families.low);
  EXPECT_EQ(of_versions.high, of_families.high);
  for (RatioTerm& term : versions) term.family = "";
  EXPECT_GT(BootstrapRatio(versions, 1).low, of_families.low + 0.1);
}

KnnStore StoreOf(const at::Tensor& keys, const at::Tensor& tokens, const KnnStore::Options& options) {
  KnnStore store;
  store.Append(keys, tokens, 4);
  store.Build(options);
  return store;
}

TEST(Evaluation, StoreGivesItsMassToWhatFollowed) {
  const at::Tensor keys = at::eye(3) * 5;  // lengths are nothing to it
  const at::Tensor tokens = at::tensor({10, 11, 12}, at::kLong);
  const MemoryQuery query = {at::eye(3).narrow(0, 0, 2), at::tensor({10, 12}, at::kLong), {1, 100}};
  const KnnStore store = StoreOf(keys, tokens, {.nearest = 3});
  const at::Tensor all = store.TargetMass(query, {});  // [sharpness, T]
  EXPECT_THAT(all[0][0].item<double>(), DoubleNear(std::exp(1) / (std::exp(1) + 2), 1e-6));
  EXPECT_THAT(all[1][0].item<double>(), DoubleNear(1, 1e-6));
  EXPECT_THAT(all[1][1].item<double>(), DoubleNear(0, 1e-6));
  EXPECT_EQ(StoreOf(keys, tokens, {.nearest = 1}).TargetMass(query, {})[0][0].item<double>(), 1);
  const std::vector<int64_t> left_out = {4};
  EXPECT_TRUE(store.TargetMass(query, left_out).isnan().all().item<bool>());
  KnnStore empty;
  EXPECT_TRUE(empty.TargetMass(query, {}).isnan().all().item<bool>());
}

// All lists give what every entry gives; some of them nearly that, where the entries lie in clusters.
TEST(Evaluation, InvertedListsFindTheNearest) {
  at::manual_seed(5);
  constexpr int64_t kEntries = 4096;
  const at::Tensor centres = at::randn({40, 16}) * 3;
  const at::Tensor place = at::randint(40, {kEntries}, at::kLong);
  const at::Tensor keys = centres.index_select(0, place) + at::randn({kEntries, 16});
  const at::Tensor tokens = at::randint(50, {kEntries}, at::kLong);
  const MemoryQuery query = {keys.narrow(0, 0, 64) + 0.1 * at::randn({64, 16}), tokens.narrow(0, 0, 64), {16}};
  const at::Tensor expected = StoreOf(keys, tokens, {.nearest = 32, .lists = 1}).TargetMass(query, {});
  const at::Tensor all = StoreOf(keys, tokens, {.nearest = 32, .lists = 64, .probed = 64}).TargetMass(query, {});
  EXPECT_LT((all - expected).abs().max().item<double>(), 1e-4);
  const at::Tensor some = StoreOf(keys, tokens, {.nearest = 32, .lists = 64, .probed = 16}).TargetMass(query, {});
  EXPECT_LT((some - expected).abs().mean().item<double>(), 0.02);
}

// Its own entries: a query sees those before it, and of them the newest.
TEST(Evaluation, CacheRemembersTheNewest) {
  ContinuousCache cache(2);
  const at::Tensor targets = at::tensor({7, 7, 8}, at::kLong);
  const at::Tensor first = cache.TargetMassThenAppend({at::ones({3, 2}), targets, {1}})[0];
  EXPECT_TRUE(std::isnan(first[0].item<double>()));
  EXPECT_EQ(first[1].item<double>(), 1);
  EXPECT_EQ(first[2].item<double>(), 0);
  const at::Tensor next = cache.TargetMassThenAppend({at::ones({2, 2}), at::tensor({7, 7}, at::kLong), {1}})[0];
  EXPECT_EQ(next[0].item<double>(), 0.5);  // 7 8 of 7 7 8
  EXPECT_EQ(next[1].item<double>(), 0.5);  // 8 7
}

// With the judged text itself as the store, but for its own document, and with text that repeats itself.
TEST_F(EvaluationTest, BaselinesLearnFromMemories) {
  const BaselineOptions options = {
      .evaluated = Options(), .store = {folder_ / "data"}, .knn = {.nearest = 16}, .documents_max = 16};
  const auto figures = EvaluateBaselines(*evaluated_, options, Quietly);
  ASSERT_TRUE(figures.ok()) << figures.status();
  ASSERT_EQ((*figures)["documents"].size(), 16U);
  for (const char* name : {"knn_lm", "continuous_cache"}) {
    const HeaderJson& mixture = (*figures)[name];
    EXPECT_LT(mixture["to_model_alone"]["value"].get<double>(), 0.8) << name;
    EXPECT_EQ(mixture["chosen"].size(), 2U);
    double bits = 0;
    double model = 0;
    for (const HeaderJson& document : (*figures)["documents"]) {
      bits += document[name].get<double>();
      model += document["model"].get<double>();
    }
    EXPECT_THAT(mixture["to_model_alone"]["value"].get<double>(), DoubleNear(bits / model, 1e-9)) << name;
  }
  EXPECT_GT((*figures)["knn_lm"]["store_tokens"].get<int64_t>(), 100);
  EXPECT_EQ((*figures)["store"][0]["name"], "data");
}

// By its id a judged document is known in other data sets too: under another one it gives itself away.
TEST_F(EvaluationTest, TheJudgedDocumentIsInNoStore) {
  const std::vector<std::string> texts = TinyTexts(30, 11);
  MakeTinyData(folder_ / "same", {texts[0], texts[1]});
  MakeTinyData(folder_ / "renamed", {"of", "a", texts[0], texts[1]});
  std::vector<double> bits;
  for (const char* store : {"same", "renamed"}) {
    const auto figures = EvaluateBaselines(
        *evaluated_, {.evaluated = Options(), .store = {folder_ / store}, .documents_max = 2}, Quietly);
    ASSERT_TRUE(figures.ok()) << figures.status();
    bits.push_back((*figures)["knn_lm"]["bits_per_byte"]["value"].get<double>());
  }
  EXPECT_LT(bits[1], 0.5 * bits[0]);
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
