#include "retriever_service/embed/bert_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "common/safetensors/safetensors.h"
#include "nlohmann/json.hpp"
#include "retriever_service/embed/bert_embedder.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

using ::testing::HasSubstr;

const std::string kGoldens = SourcePath("tests/goldens/bert");
const std::string kMiniLm = MiniLmFolder();

template <typename T>
std::vector<T> ReadTensor(const std::string& path, const std::string& name) {
  const auto file = SafetensorsFile::Open(path);
  const TensorView view = file->Find(name).value();
  std::vector<T> values(view.element_count());
  std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

struct Difference {
  double largest = 0;
  double least_cosine = 1;
  size_t worst_row = 0;
};

// Of two matrices with rows of `dimension` values, row by row.
Difference Compare(const std::vector<float>& a, const std::vector<float>& b, size_t dimension) {
  EXPECT_EQ(a.size(), b.size());
  Difference difference;
  for (size_t begin = 0; begin < a.size(); begin += dimension) {
    double dot = 0, square_a = 0, square_b = 0;
    for (size_t i = begin; i < begin + dimension; ++i) {
      difference.largest = std::max<double>(difference.largest, std::abs(a[i] - b[i]));
      dot += double{a[i]} * b[i];
      square_a += double{a[i]} * a[i];
      square_b += double{b[i]} * b[i];
    }
    const double cosine = dot / std::sqrt(square_a * square_b);
    if (!(cosine >= difference.least_cosine)) {
      difference.least_cosine = cosine;
      difference.worst_row = begin / dimension;
    }
  }
  std::cout << "largest difference " << difference.largest << ", least cosine 1 - " << 1 - difference.least_cosine
            << " (row " << difference.worst_row << ")\n";
  return difference;
}

struct MiniLmGoldens {
  std::vector<std::string> texts;
  std::vector<TokenSequence> ids;
  std::vector<float> vectors;
};

MiniLmGoldens ReadMiniLmGoldens() {
  MiniLmGoldens goldens;
  std::ifstream file(kGoldens + "/minilm_texts.json");
  for (const auto& entry : nlohmann::json::parse(file)) {
    goldens.texts.push_back(entry["text"]);
    goldens.ids.push_back(entry["ids"].get<TokenSequence>());
  }
  goldens.vectors = ReadTensor<float>(kGoldens + "/minilm_vectors.safetensors", "vectors");
  return goldens;
}

struct Variant {
  const char* name;
  BertEncoderOptions options;
  double tolerance;
  double cosine;
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

class BertEncoderTest : public ::testing::TestWithParam<Variant> {
 protected:
  static BertEncoderOptions Options() {
    BertEncoderOptions options = GetParam().options;
    options.device = TestDevice();
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(
    Kinds, BertEncoderTest,
    ::testing::Values(Variant{"fp32_1", {.numbers = BertNumbers::kFp32, .threads = 1}, 3e-6, 0.999999},
                      Variant{"fp32_3", {.numbers = BertNumbers::kFp32, .threads = 3}, 3e-6, 0.999999},
                      Variant{"fp16_1", {.numbers = BertNumbers::kFp16, .threads = 1}, 3e-4, 0.99999},
                      Variant{"fp16_2", {.numbers = BertNumbers::kFp16, .threads = 2}, 3e-4, 0.99999},
                      Variant{"plain", {.numbers = BertNumbers::kFp32, .plain_operators = true}, 3e-6, 0.999999}),
    [](const auto& info) { return info.param.name; });

TEST_P(BertEncoderTest, MiniLmVectorsAreTheReferences) {
  const MiniLmGoldens goldens = ReadMiniLmGoldens();
  const auto encoder = BertEncoder::Load(kMiniLm, "", Options());
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const auto vectors = (*encoder)->Encode(goldens.ids);
  ASSERT_TRUE(vectors.ok()) << vectors.status();
  const Difference difference = Compare(*vectors, goldens.vectors, 384);
  EXPECT_LE(difference.largest, GetParam().tolerance);
  EXPECT_GE(difference.least_cosine, GetParam().cosine);
}

TEST_P(BertEncoderTest, ABatchGivesWhatItsTextsAloneGive) {
  const MiniLmGoldens goldens = ReadMiniLmGoldens();
  const auto encoder = BertEncoder::Load(kMiniLm, "", Options());
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const auto together = (*encoder)->Encode(goldens.ids);
  std::vector<float> alone;
  for (const TokenSequence& ids : goldens.ids) {
    const auto vector = (*encoder)->Encode({&ids, 1});
    ASSERT_TRUE(vector.ok()) << vector.status();
    alone.insert(alone.end(), vector->begin(), vector->end());
  }
  EXPECT_LE(Compare(*together, alone, 384).largest, 2e-6);
}

TEST_P(BertEncoderTest, OtherSizesPoolingsNamesAndActivations) {
  for (const char* name : {"tiny_cls", "tiny_max", "tiny_odd"}) {
    const std::string expected = kGoldens + "/" + name + "/expected.safetensors";
    const std::vector<int32_t> lengths = ReadTensor<int32_t>(expected, "lengths");
    const std::vector<int32_t> ids = ReadTensor<int32_t>(expected, "ids");
    const size_t longest = ids.size() / lengths.size();
    std::vector<TokenSequence> sequences;
    sequences.reserve(lengths.size());
    for (size_t i = 0; i < lengths.size(); ++i) {
      sequences.emplace_back(ids.begin() + i * longest, ids.begin() + i * longest + lengths[i]);
    }
    const auto encoder = BertEncoder::Load(kGoldens + "/" + name, "", Options());
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    const auto vectors = (*encoder)->Encode(sequences);
    ASSERT_TRUE(vectors.ok()) << vectors.status();
    const std::vector<float> reference = ReadTensor<float>(expected, "vectors");
    const Difference difference = Compare(*vectors, reference, (*encoder)->config().hidden_size);
    EXPECT_LE(difference.largest, 20 * GetParam().tolerance) << name;  // values up to 5, not 0.2 as MiniLM's
    EXPECT_GE(difference.least_cosine, GetParam().cosine) << name;
  }
}

// A copy of a tiny model's folder that a test may spoil.
class SpoiltFolder {
 public:
  SpoiltFolder() : path_(std::filesystem::temp_directory_path() / ("bert_encoder_test." + std::to_string(getpid()))) {
    std::filesystem::remove_all(path_);
    std::filesystem::copy(kGoldens + "/tiny_cls", path_, std::filesystem::copy_options::recursive);
  }
  ~SpoiltFolder() { std::filesystem::remove_all(path_); }

  void Change(const std::string& file, const std::string& from, const std::string& to) const {
    std::ifstream in(path_ / file, std::ios::binary);
    std::string content((std::istreambuf_iterator<char>(in)), {});
    const size_t at = content.find(from);
    ASSERT_NE(at, std::string::npos);
    content.replace(at, from.size(), to);
    std::ofstream(path_ / file, std::ios::binary) << content;
  }

  std::string path() const { return path_; }
  std::string Error(const BertEncoderOptions& options = {}) const {
    return BertEncoder::Load(path_, "", options).status().ToString();
  }

 private:
  std::filesystem::path path_;
};

TEST(BertEncoderErrors, NameTheTensorThatIsMissing) {
  SpoiltFolder folder;
  folder.Change("model.safetensors", "encoder.layer.1.output.dense.bias", "encoder.layer.1.output.dense.bogs");
  EXPECT_THAT(folder.Error(), HasSubstr("bert.encoder.layer.1.output.dense.bias"));
}

TEST(BertEncoderErrors, NameTheTensorWhoseShapeIsNotTheConfigs) {
  SpoiltFolder folder;
  folder.Change("config.json", "\"intermediate_size\": 40", "\"intermediate_size\": 44");
  EXPECT_THAT(folder.Error(), HasSubstr("intermediate.dense.weight"));
  EXPECT_THAT(folder.Error(), HasSubstr("[40, 24], config.json asks for [44, 24]"));
}

TEST(BertEncoderErrors, SayWhatTheConfigHasThatIsNotSupported) {
  const std::vector<std::array<const char*, 4>> changes = {
      {"config.json", "gelu_new", "swish", "hidden_act \"swish\""},
      {"config.json", "\"bert\"", "\"roberta\"", "model_type \"roberta\""},
      {"config.json", "\"num_attention_heads\": 3", "\"num_attention_heads\": 5", "not a multiple"},
      {"config.json", "\"hidden_size\": 24", "\"hidden_size\": -1", "\"hidden_size\" must be"},
      {"config.json", "{", "[", "is not JSON"},
      {"modules.json", "Pooling", "Dense", "models.Dense\" is not supported"},
      {"1_Pooling/config.json", "\"pooling_mode_max_tokens\": false", "\"pooling_mode_max_tokens\": true",
       "exactly one"},
      {"sentence_bert_config.json", "32", "999", "2 to 40"},
  };
  for (const auto& [file, from, to, message] : changes) {
    SpoiltFolder folder;
    folder.Change(file, from, to);
    EXPECT_THAT(folder.Error(), HasSubstr(message));
    EXPECT_THAT(folder.Error(), HasSubstr(file));
  }
}

TEST(BertEncoderErrors, SayWhatIsWrongWithTheDevice) {
  const SpoiltFolder folder;
  EXPECT_THAT(folder.Error({.device = "tpu"}), HasSubstr("say cpu, cuda or cuda:N"));
  EXPECT_THAT(folder.Error({.device = "cuda:99"}), HasSubstr("--device cpu"));
}

TEST(BertEncoderErrors, SayWhichSequenceIsWrong) {
  const auto encoder = BertEncoder::Load(kGoldens + "/tiny_cls", "", {.threads = 1});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const auto error = [&](const TokenSequence& bad) {
    const std::vector<TokenSequence> sequences = {{1, 2}, bad};
    return (*encoder)->Encode(sequences).status().ToString();
  };
  EXPECT_THAT(error({}), HasSubstr("text 1 has 0 tokens"));
  EXPECT_THAT(error(TokenSequence(33, 1)), HasSubstr("takes 1 to 32"));
  EXPECT_THAT(error({3, 61}), HasSubstr("token 61"));
  EXPECT_THAT(error({-1}), HasSubstr("token -1"));
  EXPECT_EQ(error({60}), "OK");
}

TEST(BertEncoderFingerprint, FollowsWhatDecidesAVectorAndNothingElse) {
  const SpoiltFolder folder;
  const auto fingerprint = [&](const BertEncoderOptions& options, const std::string& tokenizer = "t") {
    return BertEncoder::Load(folder.path(), tokenizer, options).value()->fingerprint();
  };
  const std::string first = fingerprint({});
  EXPECT_EQ(first.size(), 32u);
  EXPECT_EQ(fingerprint({.numbers = BertNumbers::kFp32, .threads = 1}), first);
  EXPECT_NE(fingerprint({}, "u"), first);
  EXPECT_NE(fingerprint({.max_tokens = 16}), first);
  folder.Change("config_sentence_transformers.json", "query: ", "search: ");
  EXPECT_NE(fingerprint({}), first);
}

TEST(BertEmbedder, TokensAreTheReferencesAndVectorsFollow) {
  const MiniLmGoldens goldens = ReadMiniLmGoldens();
  const auto embedder = BertEmbedder::Load(kMiniLm, {});
  ASSERT_TRUE(embedder.ok()) << embedder.status();
  EXPECT_EQ((*embedder)->info().dimension, 384);
  EXPECT_EQ((*embedder)->info().max_tokens, 256);
  for (size_t i = 0; i < goldens.texts.size(); ++i) {
    EXPECT_EQ((*embedder)->Encode(goldens.texts[i], TextKind::kQuery), goldens.ids[i]) << goldens.texts[i];
  }
  const auto self_test = SelfTestVector(**embedder);
  ASSERT_TRUE(self_test.ok()) << self_test.status();
  EXPECT_EQ(self_test->size(), 384u);
}

}  // namespace
}  // namespace retro
