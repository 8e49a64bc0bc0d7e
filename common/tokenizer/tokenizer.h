// Text to token ids and back. Two kinds behind one interface: SentencePiece (our own vocabulary; generators) and
// WordPiece (BERT-family embedders). Source: Kudo & Richardson 2018 (arXiv 1808.06226); Devlin et al. 2019, WordPiece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace retro {

using TokenId = int32_t;

// A token and where it came from. The byte ranges of an encoding ascend and do not overlap.
struct Token {
  TokenId id;
  uint32_t begin;  // byte offsets into the encoded text, [begin, end)
  uint32_t end;
};

// Immutable after loading; every method may be called from any thread.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Never fails: any byte string has an encoding. No special tokens (bos, [CLS], ...) are added. At most 2^32-1 bytes.
  virtual std::vector<Token> Encode(std::string_view text) const = 0;

  // The first `most` of Encode(text); where it can, without reading more of the text.
  virtual std::vector<Token> EncodeFirst(std::string_view text, size_t most) const {
    std::vector<Token> tokens = Encode(text);
    if (tokens.size() > most) tokens.resize(most);
    return tokens;
  }

  // The bytes of the ids, concatenated. For a lossless tokenizer Decode(Encode(x)) == x for every byte string x.
  // Ids out of range and control tokens (pad, bos, eos) give no bytes.
  virtual std::string Decode(std::span<const TokenId> ids) const = 0;

  virtual int vocabulary_size() const = 0;
  // The ids of the control tokens; -1 where the vocabulary has none.
  virtual TokenId pad_id() const = 0;
  virtual TokenId bos_id() const = 0;  // [CLS] for WordPiece
  virtual TokenId eos_id() const = 0;  // [SEP] for WordPiece
  virtual TokenId unk_id() const = 0;
  // True if the tokens of every text tile it: the first begins at 0, each next one where the last ended, the last at
  // its end. Chunkers need this.
  virtual bool lossless() const = 0;
  // 32 raw bytes: SHA-256 over the kind, its options and the vocabulary file.
  virtual const std::string& fingerprint() const = 0;
};

// Loads by the kind of the file: `*.model` SentencePiece; `vocab.txt` WordPiece, uncased unless a tokenizer_config.json
// beside it says "do_lower_case": false. NOT_FOUND or INVALID_ARGUMENT with the path.
absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizer(const std::string& path);

}  // namespace retro
