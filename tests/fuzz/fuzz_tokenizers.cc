// Any byte string has an encoding; SentencePiece's tiles it and gives it back, and chunks tile it too.
#include <memory>

#include "common/tokenizer/chunker.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/wordpiece.h"
#include "tests/fuzz/fuzz.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

constexpr int kChunkSize = 16;

const Tokenizer& Pieces() {
  static const auto& tokenizer = *new auto(*LoadTokenizer(SourcePath("common/tokenizer/retro-16k.model")));
  return *tokenizer;
}

const Tokenizer& Words() {
  static const auto& tokenizer = *new auto(*WordPieceTokenizer::Create(
      "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##a\n##b\nhello\n##llo\n.\n", WordPieceTokenizer::Case::kUncased));
  return *tokenizer;
}

void CheckRanges(const std::vector<Token>& tokens, size_t size) {
  uint32_t last = 0;
  for (const Token& token : tokens) {
    Require(last <= token.begin && token.begin <= token.end && token.end <= size,
            "a token's range is no range of the text");
    last = token.end;
  }
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {"Hello, world. ab aab\n\n  x",
          "h\xc3\xa9llo \xe4\xb8\xad\xe6\x96\x87 \xed\x95\x9c \xf0\x9f\x98\x80",
          "[SEP] [UNK]a",
          "e\xcc\x81\xcc\x82\xcc\x83",
          std::string("\0\x01\xff\xfe", 4),
          "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8"};
}

void FuzzOne(std::string_view input) {
  const std::vector<Token> tokens = Pieces().Encode(input);
  CheckRanges(tokens, input.size());
  std::vector<TokenId> ids;
  ids.reserve(tokens.size());
  for (const Token& token : tokens) ids.push_back(token.id);
  Require(Pieces().Decode(ids) == input, "a text is not given back");
  uint64_t end = 0;
  for (const TextChunk& chunk : CutIntoChunks(Pieces(), input, kChunkSize)) {
    Require(chunk.begin == end && chunk.end > chunk.begin, "chunks do not tile a text");
    Require(chunk.tokens.size() <= kChunkSize, "a chunk is too long");
    end = chunk.end;
  }
  Require(end == input.size(), "chunks do not tile a text");
  CheckRanges(Words().Encode(input), input.size());
}

}  // namespace retro
