// An embedder without a model: a text's vector is drawn from a hash of its bytes. Equal texts have equal vectors,
// others are almost orthogonal. For tests, and for measuring everything around the embedder.
#pragma once

#include "retriever_service/embed/embedder.h"

namespace retro {

class HashEmbedder : public Embedder {
 public:
  explicit HashEmbedder(int dimension);

  const EmbedderInfo& info() const override { return info_; }
  // Two ids that carry 62 bits of the text's hash. Queries and passages are not told apart.
  TokenSequence Encode(std::string_view text, TextKind kind) const override;
  // Unit vectors.
  absl::StatusOr<std::vector<float>> Embed(std::span<const TokenSequence> sequences) override;

 private:
  EmbedderInfo info_;
};

}  // namespace retro
