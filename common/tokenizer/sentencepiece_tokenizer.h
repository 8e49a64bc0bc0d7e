// A SentencePiece model (Kudo & Richardson 2018) behind the Tokenizer interface.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tokenizer/sentencepiece_library.h"
#include "common/tokenizer/tokenizer.h"

namespace retro {

// A model that keeps the text (no normalisation, no dummy prefix, all white space kept) and has all 256 byte pieces, as
// our own vocabulary, is lossless here, for every byte string:
//   - Bytes that are not UTF-8 and a written-out U+2581, which the library uses for the space, are given as byte
//   pieces.
//   - The text between them is segmented by the library, in parts of at most kMaxPartBytes. A part ends before a space
//   that
//     follows something else, which no piece of our vocabulary reaches over, or, where there is none, between two
//     characters. So the time is linear in the text, and the ids of texts up to kMaxPartBytes are exactly the
//     library's.
//   - Decoding is a table of bytes per id.
// Any other model goes through the library, the whole text at once, and is not lossless. Its ranges are the library's.
class SentencePieceTokenizer : public Tokenizer {
 public:
  static constexpr size_t kMaxPartBytes = 4096;

  // `model`: the bytes of a .model file. INVALID_ARGUMENT if they are none.
  static absl::StatusOr<std::shared_ptr<const SentencePieceTokenizer>> Create(std::string_view model);

  std::vector<Token> Encode(std::string_view text) const override;
  std::string Decode(std::span<const TokenId> ids) const override;

  int vocabulary_size() const override { return static_cast<int>(table_begin_.size()) - 1; }
  TokenId pad_id() const override { return library_->pad_id(); }
  TokenId bos_id() const override { return library_->bos_id(); }
  TokenId eos_id() const override { return library_->eos_id(); }
  TokenId unk_id() const override { return library_->unk_id(); }
  bool lossless() const override { return lossless_; }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  static constexpr TokenId kNoToken = -1;

  SentencePieceTokenizer(std::unique_ptr<const SentencePieceLibrary> library, std::string_view model);

  void FillByteTable();
  std::string_view BytesOf(TokenId id) const;  // empty if out of range
  void EncodePart(std::string_view text, uint32_t begin, uint32_t end, std::vector<Token>* tokens) const;
  void EncodeAsBytes(std::string_view text, uint32_t begin, uint32_t end, std::vector<Token>* tokens) const;
  std::vector<Token> EncodeLossless(std::string_view text) const;
  std::vector<Token> EncodeWithLibrary(std::string_view text) const;

  std::unique_ptr<const SentencePieceLibrary> library_;
  // The bytes of id i are table_[table_begin_[i], table_begin_[i + 1]); none for control and unknown tokens.
  std::string table_;
  std::vector<uint32_t> table_begin_;
  std::array<TokenId, 256> byte_ids_;
  bool lossless_ = false;
  std::string fingerprint_;
};

}  // namespace retro
