// BERT's WordPiece tokenizer (Devlin et al. 2019): the same ids as PyPI `tokenizers` gives without special tokens.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/wordpiece_vocabulary.h"

namespace retro {

// kUncased: NFD, accents dropped, lower case. Both: control characters dropped, every white space a space, CJK
// ideographs and punctuation words of their own. "[UNK]", "[SEP]", "[CLS]", "[PAD]" and "[MASK]" written out in a text
// are those tokens.
//
// A token's range covers the characters that it was made of, as they stand in the text; dropped characters at its ends
// are not in it. Where one character gave several tokens (a decomposed Hangul syllable), the first has its range, the
// others are empty at its end. Bytes that are not UTF-8 are dropped like U+FFFD.
class WordPieceTokenizer : public Tokenizer {
 public:
  enum class Case { kUncased, kCased };

  // `file_text`: the bytes of a vocab.txt. INVALID_ARGUMENT as WordPieceVocabulary::Parse.
  static absl::StatusOr<std::shared_ptr<const WordPieceTokenizer>> Create(std::string_view file_text, Case letter_case);

  std::vector<Token> Encode(std::string_view text) const override;
  std::vector<Token> EncodeFirst(std::string_view text, size_t most) const override;
  // Words with a space between them; a continuation joins its word. Not the text, whose spaces, case and accents are
  // lost.
  std::string Decode(std::span<const TokenId> ids) const override;

  int vocabulary_size() const override { return vocabulary_.size(); }
  TokenId pad_id() const override { return vocabulary_.Find("[PAD]"); }
  TokenId bos_id() const override { return vocabulary_.Find("[CLS]"); }
  TokenId eos_id() const override { return vocabulary_.Find("[SEP]"); }
  TokenId unk_id() const override { return vocabulary_.unknown_id(); }
  bool lossless() const override { return false; }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  WordPieceTokenizer(WordPieceVocabulary vocabulary, Case letter_case, std::string fingerprint);

  WordPieceVocabulary vocabulary_;
  Case case_;
  std::string fingerprint_;
};

}  // namespace retro
