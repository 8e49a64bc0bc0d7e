// The embedder as callers see it who wait for their vectors: texts in, vectors out.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/document/protos.h"
#include "retriever_service/embed/batcher.h"
#include "retriever_service/embed/embedder.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

struct EmbedInput {
  std::string_view text;
  TextKind kind = TextKind::kPassage;
};

TextKind ToTextKind(pb::TextKind kind);

// Any thread.
class Embedding {
 public:
  // The batcher must outlive this.
  explicit Embedding(EmbedBatcher& batcher) : batcher_(batcher) {}

  const EmbedderInfo& info() const { return batcher_.embedder().info(); }

  // FAILED_PRECONDITION (EMBEDDER_MISMATCH) if the collection's vectors are of another embedder.
  absl::Status CheckServes(const pb::CollectionSpec& spec) const;

  // Splits the texts into wordpieces here, computes on the batcher's thread; blocks.
  absl::StatusOr<EmbedReply> Embed(const std::vector<EmbedInput>& texts, EmbedPriority priority,
                                   const CallContext& context);

  // The i-th vector of a reply.
  std::span<const float> VectorOf(const EmbedReply& reply, size_t i) const;

 private:
  EmbedBatcher& batcher_;
};

}  // namespace retro
