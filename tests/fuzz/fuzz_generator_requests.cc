// Requests as bytes through the parser of the generator: the first byte says which.
#include "common/base/byte_budget.h"
#include "common/base/call_context.h"
#include "generator_service/serve/neighbour_tokens.h"
#include "generator_service/serve/request_parser.h"
#include "tests/fuzz/fuzz.h"
#include "tests/tiny_served_model.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;

constexpr size_t kCachedChunks = 16;
constexpr int64_t kNeighboursMax = 64;
constexpr size_t kBudgetBytes = size_t{1} << 30;

// The model's sizes are all that the parser asks of it.
struct Parts {
  ServedModel model = TinyServedModel();
  NeighbourTokens tokens{*model.tokenizer,
                         {model.config().chunk_length, model.config().neighbour_length, model.config().vocabulary,
                          static_cast<TokenId>(model.config().pad_id)},
                         kCachedChunks};
  ByteBudget budget{kBudgetBytes};
  RequestParser parser{model, tokens, kNeighboursMax, budget};
};

void CheckRequest(const Parts& parts, const GenerationRequest& request) {
  Require(!request.prompt.empty(), "a generation without a prompt");
  for (const TokenId id : request.prompt) {
    Require(id >= 0 && id < parts.model.config().vocabulary, "a token outside of the vocabulary");
  }
  Require(request.retrieval.offset >= 0 && request.retrieval.offset < parts.model.config().chunk_length,
          "an offset outside of the chunk");
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  pb::GenerateRequest generate;
  generate.set_text("a prompt of some words");
  generate.set_max_tokens(7);
  generate.mutable_sampling()->set_temperature(0.5F);
  generate.mutable_retrieval()->set_k(2);
  generate.mutable_retrieval()->mutable_effort()->set_level(0.5F);
  pb::GenerateRequest tokens;
  for (int i = 0; i < 9; ++i) tokens.mutable_tokens()->add_ids(i);
  pb::ScoreRequest score;
  score.add_items()->set_context_text("context");
  score.mutable_items(0)->set_continuation_text("continuation");
  return {'\0' + generate.SerializeAsString(), '\0' + tokens.SerializeAsString(), '\1' + score.SerializeAsString()};
}

void FuzzOne(std::string_view input) {
  static const auto& parts = *new Parts;
  if (input.empty()) return;
  const std::string bytes(input.substr(1));
  if ((input[0] & 1) == 0) {
    pb::GenerateRequest message;
    if (!message.ParseFromString(bytes)) return;
    const auto request = parts.parser.ParseGenerate(message, CallContext());
    if (request.ok()) CheckRequest(parts, *request);
  } else {
    pb::ScoreRequest message;
    if (!message.ParseFromString(bytes)) return;
    const auto requests = parts.parser.ParseScore(message, CallContext());
    if (!requests.ok()) return;
    for (const GenerationRequest& request : *requests) CheckRequest(parts, request);
  }
}

}  // namespace retro
