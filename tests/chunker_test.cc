#include "common/tokenizer/chunker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "common/tokenizer/utf8.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

using ::testing::IsEmpty;

const Tokenizer& Ours() {
  static const std::shared_ptr<const Tokenizer> tokenizer =
      *LoadTokenizer(SourcePath("common/tokenizer/retro-16k.model"));
  return *tokenizer;
}

// The chunks tile the text, hold its tokens in order and end between characters.
void ExpectGoodChunks(std::string_view text, int chunk_size) {
  const std::vector<TextChunk> chunks = CutIntoChunks(Ours(), text, chunk_size);
  std::vector<TokenId> all;
  uint64_t position = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const TextChunk& chunk = chunks[i];
    ASSERT_EQ(chunk.begin, position);
    ASSERT_GT(chunk.end, chunk.begin);
    ASSERT_TRUE(chunk.end == text.size() || !IsUtf8Continuation(text[chunk.end]));
    ASSERT_EQ(Ours().Decode(chunk.tokens), text.substr(chunk.begin, chunk.end - chunk.begin));
    const auto count = static_cast<int>(chunk.tokens.size());
    ASSERT_LE(count, chunk_size);
    const bool last = i + 1 == chunks.size();
    ASSERT_GE(count, last ? 1 : chunk_size - 3);
    position = chunk.end;
    all.insert(all.end(), chunk.tokens.begin(), chunk.tokens.end());
  }
  ASSERT_EQ(position, text.size());
  std::vector<TokenId> expected;
  for (const Token& token : Ours().Encode(text)) expected.push_back(token.id);
  ASSERT_EQ(all, expected);
}

TEST(ChunkerTest, CutsEverySoManyTokens) {
  std::string text;
  for (int i = 0; i < 150; ++i) text += " the";
  const std::vector<TextChunk> chunks = CutIntoChunks(Ours(), text, 64);
  ASSERT_EQ(chunks.size(), 3u);
  EXPECT_EQ(chunks[0].tokens.size(), 64u);
  EXPECT_EQ(chunks[1].tokens.size(), 64u);
  EXPECT_EQ(chunks[2].tokens.size(), 22u);
  EXPECT_EQ(chunks[1].begin, 256u);
  EXPECT_EQ(chunks[2].end, 600u);
}

TEST(ChunkerTest, EmptyTextHasNoChunks) { EXPECT_THAT(CutIntoChunks(Ours(), "", 64), IsEmpty()); }

TEST(ChunkerTest, TextOfExactlyOneChunkIsOneChunk) {
  std::string text;
  for (int i = 0; i < 64; ++i) text += " the";
  EXPECT_EQ(CutIntoChunks(Ours(), text, 64).size(), 1u);
}

// An emoji is four byte tokens here: whichever way they lie across the border, it goes whole to one side.
TEST(ChunkerTest, NeverCutsACharacter) {
  const std::string emoji = "\xF0\x9F\xAB\xA0";
  ASSERT_EQ(Ours().Encode(emoji).size(), 4u);
  for (int words = 0; words < 8; ++words) {
    std::string text;
    for (int i = 0; i < words; ++i) text += " the";
    for (int i = 0; i < 20; ++i) text += emoji;
    for (int chunk_size = 4; chunk_size < 12; ++chunk_size) ExpectGoodChunks(text, chunk_size);
  }
  const std::vector<TextChunk> chunks = CutIntoChunks(Ours(), " the" + emoji + emoji, 8);
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_EQ(chunks[0].tokens.size(), 5u);
  EXPECT_EQ(chunks[1].tokens.size(), 4u);
}

TEST(ChunkerTest, RandomTexts) {
  constexpr unsigned kSeed = 5;
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (unsigned i = random() % 400; i > 0; --i) {
      const char32_t code = random() % 3 == 0 ? random() % 0x20000 : random() % 0x80;
      if (code < 0xD800 || code > 0xDFFF) AppendUtf8(code, text);
    }
    ASSERT_NO_FATAL_FAILURE(ExpectGoodChunks(text, 4 + static_cast<int>(random() % 80))) << "round " << round;
  }
}

TEST(ChunkerTest, BytesThatAreNoCharactersAreTiledToo) {
  const std::string text(1000, '\x80');
  const std::vector<TextChunk> chunks = CutIntoChunks(Ours(), text, 64);
  EXPECT_EQ(chunks.size(), 16u);
  EXPECT_EQ(chunks.back().end, 1000u);
}

}  // namespace
}  // namespace retro
