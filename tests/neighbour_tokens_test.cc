#include "generator_service/serve/neighbour_tokens.h"

#include <gtest/gtest.h>

#include "tests/tiny_model.h"

namespace retro {
namespace {

namespace pb = ::retro::retriever::v1;

// Counts how often it is asked.
class CountingTokenizer : public ByteTokenizer {
 public:
  std::vector<Token> Encode(std::string_view text) const override {
    ++calls;
    bytes += text.size();
    return ByteTokenizer::Encode(text);
  }
  mutable int calls = 0;
  mutable size_t bytes = 0;
};

pb::Neighbour Neighbour(uint64_t id, const std::string& text, const std::string& continuation) {
  pb::Neighbour neighbour;
  neighbour.mutable_chunk()->set_chunk_id(id);
  neighbour.mutable_chunk()->set_text(text);
  if (!continuation.empty()) {
    neighbour.mutable_continuation()->set_chunk_id(id + 1);
    neighbour.mutable_continuation()->set_text(continuation);
  }
  return neighbour;
}

class NeighbourTokensTest : public testing::Test {
 protected:
  CountingTokenizer tokenizer_;
  NeighbourTokens tokens_{tokenizer_,
                          {.chunk_length = 4, .neighbour_length = 8, .vocabulary = 260, .pad_id = 0},
                          /*cache_chunks_max=*/2};
};

TEST_F(NeighbourTokensTest, EachPartIsCutAndPaddedToItsOwnRoom) {
  generator::v1::ChunkNeighbours neighbours;
  for (const auto& [text, continuation] : {std::pair("abcdef", "x"), {"ab", "vwxyz"}, {"a", ""}}) {
    pb::Neighbour neighbour = Neighbour(1, text, continuation);
    EXPECT_TRUE(tokens_.Fit(/*same_tokenizer=*/false, &neighbour));
    *neighbours.add_neighbours() = neighbour;
  }
  const ChunkNeighbours rows = tokens_.Rows(neighbours);
  EXPECT_EQ(rows.count, 3);
  const auto a = ByteTokenizer::Id('a');
  const auto v = ByteTokenizer::Id('v');
  EXPECT_EQ(rows.tokens, (std::vector<TokenId>{a, a + 1, a + 2, a + 3, v + 2, 0,     0,     0,      //
                                               a, a + 1, 0,     0,     v,     v + 1, v + 2, v + 3,  //
                                               a, 0,     0,     0,     0,     0,     0,     0}));
}

TEST_F(NeighbourTokensTest, OfALongTextOnlySoMuchIsTokenisedAsCanFit) {
  std::string text = "a";  // what is cut off ends between two bytes of a character
  for (int i = 0; i < 1 << 20; ++i) text += "\u00e9";
  pb::Neighbour neighbour = Neighbour(1, text, text);
  EXPECT_TRUE(tokens_.Fit(/*same_tokenizer=*/false, &neighbour));
  EXPECT_EQ(tokenizer_.bytes, 8U * 256 - 1);  // of both, which are one text
  EXPECT_EQ(neighbour.chunk().token_ids_size(), 4);
  EXPECT_EQ(neighbour.chunk().text(), text);
}

TEST_F(NeighbourTokensTest, IdsOfTheModelsOwnTokenizerAreTaken) {
  pb::Neighbour neighbour = Neighbour(1, "abcd", "");
  neighbour.mutable_chunk()->add_token_ids(77);
  EXPECT_FALSE(tokens_.Fit(/*same_tokenizer=*/true, &neighbour));
  EXPECT_EQ(neighbour.chunk().token_ids(0), 77);
  EXPECT_EQ(tokenizer_.calls, 0);
}

TEST_F(NeighbourTokensTest, IdsThatTheModelCannotHaveAreNotTrusted) {
  pb::Neighbour neighbour = Neighbour(1, "a", "");
  neighbour.mutable_chunk()->add_token_ids(260);
  EXPECT_TRUE(tokens_.Fit(/*same_tokenizer=*/true, &neighbour));
  EXPECT_EQ(neighbour.chunk().token_ids(0), ByteTokenizer::Id('a'));
}

TEST_F(NeighbourTokensTest, RemembersTheTextsLastUsed) {
  const auto fit = [this](uint64_t id, const std::string& text) {
    pb::Neighbour neighbour = Neighbour(id, text, "");
    const int before = tokenizer_.calls;
    tokens_.Fit(/*same_tokenizer=*/false, &neighbour);
    EXPECT_EQ(neighbour.chunk().token_ids(0), ByteTokenizer::Id(text[0]));
    return tokenizer_.calls - before;
  };
  EXPECT_EQ(fit(1, "abcd"), 1);
  EXPECT_EQ(fit(1, "abcd"), 0);
  EXPECT_EQ(fit(1, "other"), 1);  // as after a store was put back, and has given the id again
  EXPECT_EQ(fit(1, "abcd"), 0);   // now the other one is the oldest
  EXPECT_EQ(fit(2, "third"), 1);
  EXPECT_EQ(fit(7, "abcd"), 0);
  EXPECT_EQ(fit(1, "other"), 1);
}

// A text serves as a chunk and as a continuation, whichever came first.
TEST_F(NeighbourTokensTest, WhatIsRememberedServesEveryPlace) {
  NeighbourTokens tokens(tokenizer_, {.chunk_length = 4, .neighbour_length = 10, .vocabulary = 260, .pad_id = 0}, 2);
  for (int i = 0; i < 2; ++i) {
    pb::Neighbour neighbour = Neighbour(1, "abcdefgh", "abcdefgh");
    tokens.Fit(/*same_tokenizer=*/false, &neighbour);
    EXPECT_EQ(neighbour.chunk().token_ids_size(), 4);
    EXPECT_EQ(neighbour.continuation().token_ids_size(), 6);
  }
  EXPECT_EQ(tokenizer_.calls, 1);
}

}  // namespace
}  // namespace retro
