#include "common/tokenizer/wordpiece_vocabulary.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "common/base/strings.h"
#include "common/tokenizer/utf8.h"

namespace retro {
namespace {

constexpr std::string_view kUnknownToken = "[UNK]";
constexpr std::string_view kContinuation = "##";

uint64_t EdgeKey(uint32_t node, char byte) { return uint64_t{node} << 8 | static_cast<unsigned char>(byte); }

bool IsUtf8(std::string_view text) {
  for (size_t i = SkipAscii(text, 0); i < text.size(); i = SkipAscii(text, i)) {
    const Utf8Character character = DecodeUtf8(text, i);
    if (!character.valid) return false;
    i += character.length;
  }
  return true;
}

bool HasMoreCharactersThan(std::string_view word, int limit) {
  if (word.size() <= static_cast<size_t>(limit)) return false;
  return std::ranges::count_if(word, [](char byte) { return !IsUtf8Continuation(byte); }) > limit;
}

}  // namespace

absl::StatusOr<WordPieceVocabulary> WordPieceVocabulary::Parse(std::string_view file_text) {
  WordPieceVocabulary vocabulary;
  vocabulary.token_of_.push_back(kNoToken);  // the root
  if (file_text.ends_with('\n')) file_text.remove_suffix(1);
  for (const absl::string_view line : absl::StrSplit(ToAbsl(file_text), '\n')) {
    const std::string_view token = ToStd(absl::StripTrailingAsciiWhitespace(line));
    if (!IsUtf8(token)) {
      return absl::InvalidArgumentError(StrCat("line ", vocabulary.tokens_.size() + 1, " is not UTF-8"));
    }
    if (vocabulary.tokens_.size() == kMaxTokens) {
      return absl::InvalidArgumentError(StrCat("more than ", kMaxTokens, " tokens"));
    }
    vocabulary.Insert(token, static_cast<TokenId>(vocabulary.tokens_.size()));
    vocabulary.tokens_.emplace_back(token);
  }
  vocabulary.continuation_ = vocabulary.Walk(kContinuation);
  vocabulary.unknown_id_ = vocabulary.Find(kUnknownToken);
  if (vocabulary.unknown_id_ == kNoToken) {
    return absl::InvalidArgumentError("no token [UNK]: not a WordPiece vocabulary (one token a line)");
  }
  return vocabulary;
}

void WordPieceVocabulary::Insert(std::string_view token, TokenId id) {
  uint32_t node = kRoot;
  for (const char byte : token) {
    const auto [edge, is_new] = edges_.try_emplace(EdgeKey(node, byte), static_cast<uint32_t>(token_of_.size()));
    if (is_new) token_of_.push_back(kNoToken);
    node = edge->second;
  }
  token_of_[node] = id;
}

uint32_t WordPieceVocabulary::Child(uint32_t node, char byte) const {
  const auto edge = edges_.find(EdgeKey(node, byte));
  return edge == edges_.end() ? kNoNode : edge->second;
}

uint32_t WordPieceVocabulary::Walk(std::string_view prefix) const {
  uint32_t node = kRoot;
  for (const char byte : prefix) {
    node = Child(node, byte);
    if (node == kNoNode) break;
  }
  return node;
}

TokenId WordPieceVocabulary::Find(std::string_view token) const {
  const uint32_t node = Walk(token);
  return node == kRoot ? kNoToken : token_of_[node];
}

void WordPieceVocabulary::Segment(std::string_view word, std::vector<Piece>* pieces) const {
  pieces->clear();
  const auto size = static_cast<uint32_t>(word.size());
  const Piece unknown = {unknown_id_, 0, size};
  if (HasMoreCharactersThan(word, kMaxWordCharacters)) {
    pieces->push_back(unknown);
    return;
  }
  for (uint32_t begin = 0; begin < size;) {
    Piece longest = {kNoToken, begin, begin};
    uint32_t node = begin == 0 ? kRoot : continuation_;
    if (begin > 0 && continuation_ == kNoNode) node = kNoNode;
    for (uint32_t i = begin; i < size; ++i) {
      node = Child(node, word[i]);
      if (node == kNoNode) break;
      if (token_of_[node] != kNoToken) longest = {token_of_[node], begin, i + 1};
    }
    if (longest.id == kNoToken) {
      pieces->assign(1, unknown);
      return;
    }
    pieces->push_back(longest);
    begin = longest.end;
  }
}

}  // namespace retro
