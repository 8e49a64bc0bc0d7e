// Requests as they come over the wire to what the engine takes: every field checked against the bounds that
// generator.proto states, defaults filled in. Errors name the field by its path from the request.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/byte_budget.h"
#include "common/base/call_context.h"
#include "generator_service/engine/generation.h"
#include "generator_service/serve/neighbour_tokens.h"
#include "generator_service/serve/retrieval_scope.h"
#include "generator_service/serve/served_model.h"
#include "retro/generator/v1/generator.pb.h"

namespace retro {

// Any thread.
class RequestParser {
 public:
  // All must outlive this, and `budget`, in which their scopes are held, the requests too. neighbours_max: of a chunk,
  // found or given.
  RequestParser(const ServedModel& model, NeighbourTokens& tokens, int64_t neighbours_max, ByteBudget& budget)
      : model_(model), tokens_(tokens), neighbours_max_(neighbours_max), budget_(budget) {}

  // INVALID_ARGUMENT (reasons INVALID_FIELD, CONTEXT_TOO_LONG), UNIMPLEMENTED, PERMISSION_DENIED for what the caller's
  // API key does not allow, or RESOURCE_EXHAUSTED where the budget has no room for the scope. A seed is chosen where
  // none is given.
  absl::StatusOr<GenerationRequest> ParseGenerate(const generator::v1::GenerateRequest& message,
                                                  const CallContext& call) const;

  // One generation of no tokens an item, whose continuation is echoed with its log-probabilities. Where the context is
  // empty, a token of its own stands in for it, as something has to predict the first one.
  absl::StatusOr<std::vector<GenerationRequest>> ParseScore(const generator::v1::ScoreRequest& message,
                                                            const CallContext& call) const;

 private:
  // The most tokens that prompt and generation may have together.
  absl::StatusOr<int64_t> TokensMax(const generator::v1::GenerateRequest& message) const;
  absl::StatusOr<std::vector<TokenId>> ParsePrompt(const generator::v1::GenerateRequest& message,
                                                   int64_t tokens_max) const;
  absl::StatusOr<std::vector<TokenId>> Tokenise(const std::string& field, const std::string& text,
                                                int64_t tokens_max) const;
  absl::Status CheckIds(const std::string& field, const google::protobuf::RepeatedField<int32_t>& ids) const;
  absl::StatusOr<int64_t> ParseMaxTokens(const generator::v1::GenerateRequest& message, int64_t prompt,
                                         int64_t tokens_max, const Caller* caller) const;
  absl::StatusOr<SamplingSettings> ParseSampling(const generator::v1::Sampling& message) const;
  absl::Status ParseStops(const generator::v1::GenerateRequest& message, GenerationRequest& request) const;
  // Everything but the offset, for a sequence of at most so many tokens.
  absl::StatusOr<RetrievalSettings> ParseRetrieval(const generator::v1::Retrieval& message, int64_t tokens_max,
                                                   const CallContext& call) const;
  int64_t OffsetOf(const generator::v1::Retrieval& message, int64_t prompt) const;
  absl::Status CheckGiven(const std::string& field, const retriever::v1::Neighbour& neighbour) const;
  absl::Status ParseGiven(const generator::v1::Retrieval& message, int64_t tokens_max, RetrievalScope& scope) const;
  absl::StatusOr<GenerationRequest> ParseItem(const std::string& path, const generator::v1::ScoreItem& item,
                                              int64_t* context) const;

  const ServedModel& model_;
  NeighbourTokens& tokens_;
  const int64_t neighbours_max_;
  ByteBudget& budget_;
};

}  // namespace retro
