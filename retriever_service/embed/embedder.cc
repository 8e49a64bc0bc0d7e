#include "retriever_service/embed/embedder.h"

namespace retro {

absl::StatusOr<std::vector<float>> SelfTestVector(Embedder& embedder) {
  const TokenSequence sequence = embedder.Encode(kSelfTestText, TextKind::kPassage);
  return embedder.Embed({&sequence, 1});
}

}  // namespace retro
