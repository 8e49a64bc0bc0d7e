// A WordPiece vocabulary and its greedy longest-match segmentation of one word (Devlin et al. 2019).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/tokenizer/tokenizer.h"

namespace retro {

// Immutable after parsing.
class WordPieceVocabulary {
 public:
  // One token a line, its id the line's number from 0; the last of two equal lines counts. INVALID_ARGUMENT if "[UNK]"
  // is missing, a line is not UTF-8 or there are more than kMaxTokens.
  static absl::StatusOr<WordPieceVocabulary> Parse(std::string_view file_text);

  static constexpr size_t kMaxTokens = 4'000'000;

  // A token of a word: bytes [begin, end) of it.
  struct Piece {
    TokenId id;
    uint32_t begin;
    uint32_t end;
  };
  // Fills `pieces` with the longest token at each place, those after the first being continuations ("##"). A word that
  // cannot be had that way, or has more than kMaxWordCharacters, is one unknown token. `word` must not be empty.
  void Segment(std::string_view word, std::vector<Piece>* pieces) const;

  static constexpr int kMaxWordCharacters = 100;

  int size() const { return static_cast<int>(tokens_.size()); }
  const std::string& token(TokenId id) const { return tokens_[id]; }
  TokenId unknown_id() const { return unknown_id_; }
  TokenId Find(std::string_view token) const;  // -1 if there is none

 private:
  static constexpr uint32_t kNoNode = 0;  // the root is nobody's child
  static constexpr uint32_t kRoot = 0;
  static constexpr TokenId kNoToken = -1;

  WordPieceVocabulary() = default;
  void Insert(std::string_view token, TokenId id);
  uint32_t Child(uint32_t node, char byte) const;
  uint32_t Walk(std::string_view prefix) const;  // the node of a prefix, or kNoNode

  std::vector<std::string> tokens_;
  // A trie over the tokens' bytes: edges_[node << 8 | byte] = child; token_of_[node] = the token that ends there.
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  std::vector<TokenId> token_of_;
  uint32_t continuation_ = kNoNode;  // the node of "##"
  TokenId unknown_id_ = kNoToken;
};

}  // namespace retro
