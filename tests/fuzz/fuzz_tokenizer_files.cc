// Any bytes as a vocabulary, of SentencePiece or (after a zero byte) of WordPiece: it is refused, or it encodes every
// text to tokens of its own.
#include <memory>

#include "common/base/file.h"
#include "common/tokenizer/sentencepiece_tokenizer.h"
#include "common/tokenizer/wordpiece.h"
#include "tests/fuzz/fuzz.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

constexpr int kWithBytes = 300;  // pieces: control pieces, bytes and some more
constexpr int kWithout = 40;

void CheckTokens(const Tokenizer& tokenizer) {
  for (const std::string_view text :
       {"Hello, world. ab \n\n x", "h\xc3\xa9llo \xe4\xb8\xad \xf0\x9f\x98\x80", "\xff"}) {
    uint32_t last = 0;
    for (const Token& token : tokenizer.Encode(text)) {
      Require(token.id >= 0 && token.id < tokenizer.vocabulary_size(), "an id of no token");
      Require(last <= token.begin && token.begin <= token.end && token.end <= text.size(), "a range of no text");
      last = token.end;
    }
  }
}

template <typename T>
void CheckLoaded(const absl::StatusOr<std::shared_ptr<const T>>& tokenizer) {
  if (tokenizer.ok()) return CheckTokens(**tokenizer);
  Require(tokenizer.status().code() == absl::StatusCode::kInvalidArgument, "refused with another status");
}

// Our model with its first pieces alone. A piece is field 1 of a protobuf, shorter than 128 bytes; what follows the
// pieces are the settings.
std::string SmallModel(int pieces) {
  const std::string model = *ReadFile(SourcePath("common/tokenizer/retro-16k.model"));
  constexpr char kPieceTag = 0x0a;
  size_t at = 0, kept = 0;
  for (int piece = 0; at + 1 < model.size() && model[at] == kPieceTag; ++piece) {
    at += 2 + static_cast<unsigned char>(model[at + 1]);
    if (piece < pieces) kept = at;
  }
  return model.substr(0, kept) + model.substr(at);
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  using std::string_literals::operator""s;
  return {SmallModel(kWithBytes), SmallModel(kWithout), "\0[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n"s};
}

void FuzzOne(std::string_view input) {
  if (input.starts_with('\0')) {
    CheckLoaded(WordPieceTokenizer::Create(input.substr(1), WordPieceTokenizer::Case::kUncased));
  } else {
    CheckLoaded(SentencePieceTokenizer::Create(input));
  }
}

}  // namespace retro
