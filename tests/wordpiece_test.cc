#include "common/tokenizer/wordpiece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/file.h"
#include "tests/test_paths.h"

namespace retro {

bool operator==(const Token& a, const Token& b) { return a.id == b.id && a.begin == b.begin && a.end == b.end; }
void PrintTo(const Token& token, std::ostream* out) {
  *out << token.id << "[" << token.begin << "," << token.end << ")";
}

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Case = WordPieceTokenizer::Case;

// Ids by line: 0 [PAD] ... 17.
constexpr std::string_view kVocabulary =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\na\n##a\nA\n.\n[\n]\nmask\n\xE6\xBC\xA2\n"
    "\xE1\x84\x80\n##\xE1\x85\xA1\n";
enum Id : TokenId {
  kUnk = 1,
  kSep = 3,
  kMask = 4,
  kUn,
  kAff,
  kAble,
  kA,
  kMoreA,
  kUpperA,
  kDot,
  kOpen,
  kClose,
  kLowMask,
  kHan,
  kJamoG,
  kJamoA
};

std::shared_ptr<const WordPieceTokenizer> Create(Case letter_case, std::string_view vocabulary = kVocabulary) {
  return *WordPieceTokenizer::Create(vocabulary, letter_case);
}

std::vector<Token> Encode(std::string_view text) { return Create(Case::kUncased)->Encode(text); }

TEST(WordPieceTest, TakesTheLongestPieceAndItsRange) {
  EXPECT_THAT(Encode(" unaffable. "),
              ElementsAre(Token{kUn, 1, 3}, Token{kAff, 3, 6}, Token{kAble, 6, 10}, Token{kDot, 10, 11}));
}

TEST(WordPieceTest, AWordThatCannotBeCutIsOneUnknownToken) {
  EXPECT_THAT(Encode("unaffix a"), ElementsAre(Token{kUnk, 0, 7}, Token{kA, 8, 9}));
}

TEST(WordPieceTest, UncasedDropsCaseAndAccents) {
  EXPECT_THAT(Encode("\xC3\x80"), ElementsAre(Token{kA, 0, 2}));                            // À
  EXPECT_THAT(Encode("A\xCC\x80\x61"), ElementsAre(Token{kA, 0, 1}, Token{kMoreA, 3, 4}));  // A, combining grave, a
}

TEST(WordPieceTest, CasedKeepsThem) {
  EXPECT_THAT(Create(Case::kCased)->Encode("A a \xC3\x80"),
              ElementsAre(Token{kUpperA, 0, 1}, Token{kA, 2, 3}, Token{kUnk, 4, 6}));
}

TEST(WordPieceTest, ControlCharactersAndBadBytesAreAsIfTheyWereNotThere) {
  const std::string_view text(
      "u\0n\x01"
      "aff\xFF\xE2\x80\x8B"
      "able\xEF\xBF\xBD",
      18);
  EXPECT_THAT(Encode(text), ElementsAre(Token{kUn, 0, 3}, Token{kAff, 4, 7}, Token{kAble, 11, 15}));
}

TEST(WordPieceTest, IdeographsAreWords) {
  EXPECT_THAT(Encode("a\xE6\xBC\xA2\x61"), ElementsAre(Token{kA, 0, 1}, Token{kHan, 1, 4}, Token{kA, 4, 5}));
}

TEST(WordPieceTest, TokensOfOneCharacterDoNotOverlap) {
  EXPECT_THAT(Encode("\xEA\xB0\x80"), ElementsAre(Token{kJamoG, 0, 3}, Token{kJamoA, 3, 3}));  // 가
}

TEST(WordPieceTest, SpecialTokensInTheTextAreTaken) {
  EXPECT_THAT(Encode("a[MASK]a[SEP"), ElementsAre(Token{kA, 0, 1}, Token{kMask, 1, 7}, Token{kA, 7, 8},
                                                  Token{kOpen, 8, 9}, Token{kUnk, 9, 12}));
  EXPECT_THAT(Encode("[mask]"), ElementsAre(Token{kOpen, 0, 1}, Token{kLowMask, 1, 5}, Token{kClose, 5, 6}));
}

TEST(WordPieceTest, WordsPastTheBoundAreUnknown) {
  const auto tokens = [](size_t count) { return Encode(std::string(count, 'a')); };
  EXPECT_EQ(tokens(WordPieceVocabulary::kMaxWordCharacters).size(), WordPieceVocabulary::kMaxWordCharacters);
  EXPECT_THAT(tokens(WordPieceVocabulary::kMaxWordCharacters + 1), ElementsAre(Token{kUnk, 0, 101}));
}

TEST(WordPieceTest, NothingGivesNothing) {
  EXPECT_THAT(Encode(""), IsEmpty());
  EXPECT_THAT(Encode(" \t\r\n\xC2\xA0\xE3\x80\x80\x01"), IsEmpty());
}

TEST(WordPieceTest, TheFirstTokensAreThoseOfAll) {
  const auto tokenizer = Create(Case::kUncased);
  const std::string_view text = "unaffable \xC3\xA9 a.a [MASK][SEP] \xE6\xBC\xA2 unaa [x] a";
  const std::vector<Token> all = tokenizer->Encode(text);
  for (size_t most = 0; most <= all.size() + 1; ++most) {
    const std::vector<Token> first(all.begin(), all.begin() + static_cast<ptrdiff_t>(std::min(most, all.size())));
    EXPECT_EQ(tokenizer->EncodeFirst(text, most), first) << most;
  }
}

TEST(WordPieceTest, DecodeJoinsContinuationsAndSkipsControlTokens) {
  const auto tokenizer = Create(Case::kUncased);
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{2, kUn, kAff, kAble, kDot, kSep, 0, -1, 1000}), "unaffable .");
}

TEST(WordPieceTest, RefusesWhatIsNoVocabulary) {
  EXPECT_THAT(std::string(WordPieceTokenizer::Create("a\nb\n", Case::kCased).status().message()), HasSubstr("[UNK]"));
  EXPECT_THAT(std::string(WordPieceTokenizer::Create("[UNK]\n\xFF\n", Case::kCased).status().message()),
              HasSubstr("line 2"));
  EXPECT_FALSE(WordPieceTokenizer::Create("", Case::kCased).ok());
}

TEST(WordPieceTest, FingerprintCoversVocabularyAndCase) {
  const std::string uncased = Create(Case::kUncased)->fingerprint();
  EXPECT_EQ(uncased.size(), 32u);
  EXPECT_EQ(uncased, Create(Case::kUncased)->fingerprint());
  EXPECT_NE(uncased, Create(Case::kCased)->fingerprint());
  EXPECT_NE(uncased, Create(Case::kUncased, "[UNK]\n")->fingerprint());
}

TEST(WordPieceTest, BertVocabulary) {
  const auto vocabulary = ReadFile(MiniLmFolder() + "/vocab.txt");
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  const auto tokenizer = Create(Case::kUncased, *vocabulary);
  EXPECT_EQ(tokenizer->vocabulary_size(), 30522);
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->unk_id(), 100);
  EXPECT_EQ(tokenizer->bos_id(), 101);
  EXPECT_EQ(tokenizer->eos_id(), 102);
  EXPECT_THAT(tokenizer->Encode("Hello, World!"),
              ElementsAre(Token{7592, 0, 5}, Token{1010, 5, 6}, Token{2088, 7, 12}, Token{999, 12, 13}));
}

}  // namespace
}  // namespace retro
