// The bytes that one token adds to the text of the tokens before it.
#pragma once

#include <optional>
#include <string>

#include "common/tokenizer/tokenizer.h"

namespace retro {

// For one sequence, token by token. With a lossless tokenizer each token has its bytes; with others (imported models'
// SentencePiece with a dummy prefix, WordPiece) they depend on the token before, for example for the space between.
class TokenBytes {
 public:
  // `tokenizer` must outlive this.
  explicit TokenBytes(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // The bytes of the next token.
  std::string Next(TokenId id);

 private:
  const Tokenizer& tokenizer_;
  std::optional<TokenId> previous_;
};

}  // namespace retro
