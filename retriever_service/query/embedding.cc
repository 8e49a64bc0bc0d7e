#include "retriever_service/query/embedding.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/strings.h"

namespace retro {

TextKind ToTextKind(pb::TextKind kind) { return kind == pb::TEXT_KIND_QUERY ? TextKind::kQuery : TextKind::kPassage; }

absl::Status Embedding::CheckServes(const pb::CollectionSpec& spec) const {
  if (spec.embedder_fingerprint() == info().fingerprint) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kEmbedderMismatch,
               StrCat("collection \"", spec.name(), "\" was made with another embedder than this server's (",
                      info().name, "): send vectors of that one, or use a server that has it"));
}

absl::StatusOr<EmbedReply> Embedding::Embed(const std::vector<EmbedInput>& texts, EmbedPriority priority,
                                            const CallContext& context) {
  EmbedRequest request;
  request.sequences.reserve(texts.size());
  for (const EmbedInput& input : texts) request.sequences.push_back(batcher_.embedder().Encode(input.text, input.kind));
  request.priority = priority;
  request.key = context.key();
  request.deadline = context.deadline;
  request.cancelled = context.cancelled;
  return EmbedAndWait(batcher_, std::move(request));
}

std::span<const float> Embedding::VectorOf(const EmbedReply& reply, size_t i) const {
  const auto dimension = static_cast<size_t>(info().dimension);
  return std::span(reply.vectors).subspan(i * dimension, dimension);
}

}  // namespace retro
