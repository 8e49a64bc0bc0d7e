// A BERT encoder together with its WordPiece tokenizer: texts to vectors.
#pragma once

#include <memory>
#include <string>

#include "retriever_service/embed/bert_encoder.h"
#include "retriever_service/embed/embedder.h"

namespace retro {

class BertEmbedder : public Embedder {
 public:
  // Errors of BertEncoder::Load and LoadTokenizer; INVALID_ARGUMENT if vocab.txt does not fit the network.
  static absl::StatusOr<std::unique_ptr<BertEmbedder>> Load(const std::string& folder,
                                                            const BertEncoderOptions& options);

  const EmbedderInfo& info() const override { return info_; }
  // [CLS], then the kind's prefix and the text, cut to max_tokens - 2 wordpieces, then [SEP].
  TokenSequence Encode(std::string_view text, TextKind kind) const override;
  absl::StatusOr<std::vector<float>> Embed(std::span<const TokenSequence> sequences) override;

 private:
  BertEmbedder(std::shared_ptr<const Tokenizer> tokenizer, std::unique_ptr<BertEncoder> encoder);

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<BertEncoder> encoder_;
  EmbedderInfo info_;
};

}  // namespace retro
