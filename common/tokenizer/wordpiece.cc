#include "common/tokenizer/wordpiece.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/tokenizer/wordpiece_normalizer.h"

namespace retro {
namespace {

constexpr std::string_view kSpecialTokens[] = {"[UNK]", "[SEP]", "[CLS]", "[PAD]", "[MASK]"};
constexpr std::string_view kContinuation = "##";

// Segments words into tokens with ranges in the text.
class TokenWriter {
 public:
  TokenWriter(const WordPieceVocabulary& vocabulary, std::vector<Token>* tokens)
      : vocabulary_(vocabulary), tokens_(*tokens) {}

  void Write(const NormalizedWord& word) {
    vocabulary_.Segment(word.bytes, &pieces_);
    for (const WordPieceVocabulary::Piece& piece : pieces_) {
      WriteToken(piece.id, word.sources[piece.begin].begin, word.sources[piece.end - 1].end);
    }
  }

  void WriteToken(TokenId id, uint32_t begin, uint32_t end) {
    const uint32_t least = tokens_.empty() ? 0 : tokens_.back().end;
    begin = std::max(begin, least);
    tokens_.push_back({id, begin, std::max(begin, end)});
  }

 private:
  const WordPieceVocabulary& vocabulary_;
  std::vector<Token>& tokens_;
  std::vector<WordPieceVocabulary::Piece> pieces_;
};

// The next special token at or after `position`: where it begins and which it is; npos and empty if there is none.
struct SpecialToken {
  size_t position;
  std::string_view text;
};

SpecialToken FindSpecialToken(const WordPieceVocabulary& vocabulary, std::string_view text, size_t position) {
  for (position = text.find('[', position); position != text.npos; position = text.find('[', position + 1)) {
    for (const std::string_view special : kSpecialTokens) {
      if (text.substr(position).starts_with(special) && vocabulary.Find(special) >= 0) return {position, special};
    }
  }
  return {text.npos, {}};
}

std::string Fingerprint(std::string_view file_text, WordPieceTokenizer::Case letter_case) {
  Sha256 hash;
  hash.UpdateField("wordpiece");
  hash.UpdateField(letter_case == WordPieceTokenizer::Case::kUncased ? "uncased" : "cased");
  hash.UpdateField(file_text);
  return hash.Finish();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const WordPieceTokenizer>> WordPieceTokenizer::Create(std::string_view file_text,
                                                                                     Case letter_case) {
  RETRO_ASSIGN_OR_RETURN(WordPieceVocabulary vocabulary, WordPieceVocabulary::Parse(file_text));
  return std::shared_ptr<const WordPieceTokenizer>(
      new WordPieceTokenizer(std::move(vocabulary), letter_case, Fingerprint(file_text, letter_case)));
}

WordPieceTokenizer::WordPieceTokenizer(WordPieceVocabulary vocabulary, Case letter_case, std::string fingerprint)
    : vocabulary_(std::move(vocabulary)), case_(letter_case), fingerprint_(std::move(fingerprint)) {}

std::vector<Token> WordPieceTokenizer::Encode(std::string_view text) const {
  return EncodeFirst(text, std::numeric_limits<size_t>::max());
}

std::vector<Token> WordPieceTokenizer::EncodeFirst(std::string_view text, size_t most) const {
  std::vector<Token> tokens;
  TokenWriter writer(vocabulary_, &tokens);
  const bool uncased = case_ == Case::kUncased;
  for (size_t position = 0; position < text.size() && tokens.size() < most;) {
    const SpecialToken special = FindSpecialToken(vocabulary_, text, position);
    const size_t end = std::min(special.position, text.size());
    WordPieceNormalizer(uncased, [&](const NormalizedWord& word) {
      writer.Write(word);
      return tokens.size() < most;
    }).Normalize(text, position, end);
    position = end + special.text.size();
    if (!special.text.empty()) {
      writer.WriteToken(vocabulary_.Find(special.text), static_cast<uint32_t>(end), static_cast<uint32_t>(position));
    }
  }
  if (tokens.size() > most) tokens.resize(most);
  return tokens;
}

std::string WordPieceTokenizer::Decode(std::span<const TokenId> ids) const {
  const TokenId silent[] = {pad_id(), bos_id(), eos_id()};
  std::string text;
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocabulary_.size() || std::ranges::find(silent, id) != std::end(silent)) continue;
    std::string_view token = vocabulary_.token(id);
    if (token.size() > kContinuation.size() && token.starts_with(kContinuation)) {
      token.remove_prefix(kContinuation.size());
    } else if (!text.empty()) {
      text.push_back(' ');
    }
    text.append(token);
  }
  return text;
}

}  // namespace retro
