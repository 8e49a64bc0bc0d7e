#include "common/tokenizer/sentencepiece_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/file.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

using ::testing::Each;

const std::string kModelPath = SourcePath("common/tokenizer/retro-16k.model");

const std::string& Model() {
  static const std::string model = *ReadFile(kModelPath);
  return model;
}

const SentencePieceTokenizer& Ours() {
  static const std::shared_ptr<const SentencePieceTokenizer> tokenizer = *SentencePieceTokenizer::Create(Model());
  return *tokenizer;
}

std::vector<TokenId> Ids(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<TokenId> ids;
  for (const Token& token : tokenizer.Encode(text)) ids.push_back(token.id);
  return ids;
}

void ExpectKept(std::string_view text) {
  const std::vector<Token> tokens = Ours().Encode(text);
  std::vector<TokenId> ids;
  uint32_t position = 0;
  for (const Token& token : tokens) {
    ASSERT_EQ(token.begin, position);
    ASSERT_GT(token.end, token.begin);
    ASSERT_EQ(Ours().Decode(std::vector<TokenId>{token.id}), text.substr(token.begin, token.end - token.begin));
    position = token.end;
    ids.push_back(token.id);
  }
  ASSERT_EQ(position, text.size());
  ASSERT_EQ(Ours().Decode(ids), text);
}

TEST(SentencePieceTokenizerTest, OurVocabulary) {
  EXPECT_TRUE(Ours().lossless());
  EXPECT_EQ(Ours().vocabulary_size(), 16384);
  EXPECT_EQ(Ours().pad_id(), 0);
  EXPECT_EQ(Ours().unk_id(), 1);
  EXPECT_EQ(Ours().bos_id(), 2);
  EXPECT_EQ(Ours().eos_id(), 3);
  EXPECT_EQ(Ours().fingerprint().size(), 32u);
  EXPECT_EQ(Ours().Encode("the house of the people").size(), 5u);
  EXPECT_EQ(Ours().Encode("1234").size(), 4u) << "digits are split";
  EXPECT_EQ(Ours().Encode("x\n\ny").size(), 3u);
  EXPECT_EQ(Ours().Encode("        ").size(), 1u) << "indentation is a piece";
  EXPECT_EQ(Ours().Encode(" the\xE2\x96\x81 the").size(), 5u) << "only the symbol itself is given as bytes";
  EXPECT_EQ(Ours().Encode(" the\xFF the").size(), 3u) << "only the broken byte is given as a byte";
}

TEST(SentencePieceTokenizerTest, KeepsEveryByteOfAwkwardTexts) {
  for (const std::string_view text :
       {std::string_view(""), std::string_view("\0", 1), std::string_view("a\0\0b", 4), std::string_view(" "),
        std::string_view("  a  b  "), std::string_view("\r\n\r\n\n\r\t\v\f"), std::string_view("\xE2\x96\x81"),
        std::string_view(" \xE2\x96\x81 a\xE2\x96\x81"), std::string_view("\xE2\x96"),
        std::string_view("\xE2\x96\x81\xE2\x96"), std::string_view("<s></s><pad><unk><0x41><0xFF>"),
        std::string_view("\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x9A\x80"),
        std::string_view("\xFF\xFE\x80 text \xC0\x80"),
        std::string_view("\xED\xA0\x80 \xEF\xBF\xBD \xEF\xBB\xBF \xF4\x8F\xBF\xBF \xF4\x90\x80\x80"),
        std::string_view("e\xCC\x81 \xC3\xA9 \xEF\xAC\x81")}) {
    ExpectKept(text);
  }
}

TEST(SentencePieceTokenizerTest, KeepsEveryPairOfBytes) {
  std::string all;
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      all += {static_cast<char>(first), static_cast<char>(second)};
      all += (second % 3 == 0) ? " " : "";
    }
  }
  ExpectKept(all);
}

TEST(SentencePieceTokenizerTest, KeepsRandomBytes) {
  constexpr unsigned kSeed = 11;
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  constexpr std::string_view kParts[] = {
      " ", "\n", "the", "\xE2\x96\x81", "\xE2", "\x96", "\x81", "\xF0\x9F\x98\x80", "<s>", "\xC3\xA9", "0"};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (unsigned i = random() % 60; i > 0; --i) {
      if (random() % 2 == 0) {
        text += static_cast<char>(random());
      } else {
        text += kParts[random() % std::size(kParts)];
      }
    }
    ASSERT_NO_FATAL_FAILURE(ExpectKept(text)) << "round " << round;
  }
}

// Texts of many parts, with and without places to cut at; a cut before a space changes no token.
TEST(SentencePieceTokenizerTest, LongTexts) {
  constexpr size_t kLength = 10 * SentencePieceTokenizer::kMaxPartBytes + 17;
  ExpectKept(std::string(kLength, 'a'));
  ExpectKept(std::string(kLength, ' '));
  std::string wide;
  while (wide.size() < kLength) wide += "\xF0\x9F\x98\x80";
  ExpectKept(wide);
  const std::vector<TokenId> sentence = Ids(Ours(), " a house of cards");
  std::string text;
  std::vector<TokenId> expected;
  while (text.size() < kLength) {
    text += " a house of cards";
    expected.insert(expected.end(), sentence.begin(), sentence.end());
  }
  EXPECT_EQ(Ids(Ours(), text), expected);
}

TEST(SentencePieceTokenizerTest, DecodeSkipsControlTokensAndWhatIsOutOfRange) {
  std::vector<TokenId> ids = Ids(Ours(), "one two");
  ids.insert(ids.begin(), {2, 0, -1, 16384, 1 << 30});
  ids.push_back(3);
  EXPECT_EQ(Ours().Decode(ids), "one two");
}

TEST(SentencePieceTokenizerTest, ThreadsGetTheSame) {
  const std::string text = "Many threads, one vocabulary: 12 \xF0\x9F\x98\x80\n";
  const std::vector<TokenId> expected = Ids(Ours(), text);
  std::vector<int> same(4, 0);
  std::vector<std::thread> threads;
  threads.reserve(same.size());
  for (int& result : same) {
    threads.emplace_back([&] {
      bool equal = true;
      for (int i = 0; i < 200; ++i) equal = equal && Ids(Ours(), text) == expected;
      result = equal;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(same, Each(1));
}

// Protobuf messages that follow one another are merged: these bytes change one setting of our model.
constexpr std::string_view kWithDummyPrefix("\x1A\x02\x18\x01", 4);  // normalizer_spec { add_dummy_prefix: true }
constexpr std::string_view kWithoutSpaces("\x1A\x02\x20\x01", 4);    // { remove_extra_whitespaces: true }

TEST(SentencePieceTokenizerTest, AModelThatChangesTextIsNotLossless) {
  for (const std::string_view setting : {kWithDummyPrefix, kWithoutSpaces}) {
    const auto tokenizer = SentencePieceTokenizer::Create(Model() + std::string(setting));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_FALSE((*tokenizer)->lossless());
    EXPECT_NE((*tokenizer)->fingerprint(), Ours().fingerprint());
  }
}

TEST(SentencePieceTokenizerTest, AModelThatChangesTextGoesThroughTheLibrary) {
  const auto tokenizer = *SentencePieceTokenizer::Create(Model() + std::string(kWithDummyPrefix));
  EXPECT_EQ(Ids(*tokenizer, "house of"), Ids(Ours(), " house of"));
  const std::vector<Token> tokens = tokenizer->Encode("house of");
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(tokens[0].begin, 0u);
  EXPECT_EQ(tokens[0].end, 5u);
  EXPECT_EQ(tokens[1].begin, 5u);
  EXPECT_EQ(tokens[1].end, 8u);
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{2, tokens[0].id, tokens[1].id, -5, 99999}), "house of");
}

TEST(SentencePieceTokenizerTest, RefusesWhatIsNoModel) {
  for (const std::string& bytes :
       {std::string(), std::string("hello"), Model().substr(0, Model().size() / 2), std::string(1000, '\xFF')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(SentencePieceTokenizer::Create(bytes).status())) << bytes.size();
  }
}

}  // namespace
}  // namespace retro
