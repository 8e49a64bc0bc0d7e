// A RETRO model small enough for tests, with random weights, over a tokenizer whose tokens are bytes.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/tokenizer/tokenizer.h"
#include "generator_service/engine/session.h"
#include "generator_service/model/model.h"

namespace retro {

// Ids: pad 0, unk 1, bos 2, eos 3, then the 256 bytes.
class ByteTokenizer : public Tokenizer {
 public:
  static constexpr int kFirstByte = 4;

  explicit ByteTokenizer(std::string fingerprint = std::string(32, 'b')) : fingerprint_(std::move(fingerprint)) {}

  std::vector<Token> Encode(std::string_view text) const override {
    std::vector<Token> tokens;
    tokens.reserve(text.size());
    for (uint32_t i = 0; i < text.size(); ++i) tokens.push_back({Id(text[i]), i, i + 1});
    return tokens;
  }
  std::string Decode(std::span<const TokenId> ids) const override {
    std::string text;
    for (const TokenId id : ids) {
      if (id >= kFirstByte && id < vocabulary_size()) text.push_back(static_cast<char>(id - kFirstByte));
    }
    return text;
  }
  int vocabulary_size() const override { return kFirstByte + 256; }
  TokenId pad_id() const override { return 0; }
  TokenId bos_id() const override { return 2; }
  TokenId eos_id() const override { return 3; }
  TokenId unk_id() const override { return 1; }
  bool lossless() const override { return true; }
  const std::string& fingerprint() const override { return fingerprint_; }

  static TokenId Id(char byte) { return kFirstByte + static_cast<unsigned char>(byte); }

 private:
  std::string fingerprint_;
};

inline std::vector<TokenId> Ids(std::string_view text) {
  std::vector<TokenId> ids;
  for (const char byte : text) ids.push_back(ByteTokenizer::Id(byte));
  return ids;
}

// m = 8, r = 16, three layers, CCA in the last two, mask_pad on. The readout is scaled up so that greedy choices are
// far from ties.
std::unique_ptr<RetroModel> MakeTinyModel(uint64_t seed = 7, int64_t max_length = 128);

inline ModelFacts TinyFacts(const RetroModel& model, const Tokenizer& tokenizer) {
  const ModelConfig& config = model.config();
  return {config.vocabulary, config.chunk_length, config.max_length, tokenizer.pad_id(), &tokenizer};
}

}  // namespace retro
