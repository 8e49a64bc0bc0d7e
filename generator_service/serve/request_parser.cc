#include "generator_service/serve/request_parser.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/rpc/unary.h"
#include "generator_service/engine/text_assembler.h"
#include "generator_service/serve/given_metadata.h"
#include "generator_service/serve/retrieval_fields.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;

constexpr int64_t kMaxTokensDefault = 256;
// Of a sequence whose window slides, in contexts of the model: a call does not run for ever.
constexpr int64_t kContextsMax = 16;
constexpr float kTemperatureMax = 100;
constexpr float kPenaltyMax = 10;
constexpr float kBiasMax = 100;
constexpr size_t kBiasesMax = 1024;
constexpr int kStopStringsMax = 16;
constexpr size_t kStopStringBytesMax = 256;
constexpr int kStopIdsMax = 64;
constexpr uint32_t kTopLogprobsMax = 20;
constexpr float kGateMax = 16;  // far more would overflow the residual stream
constexpr int kScoreItemsMax = 64;
// Held as long as the generation runs. All neighbours of a context of 4,096 tokens, 64 a chunk, have about 8 MB.
constexpr size_t kGivenBytesMax = 16 << 20;

std::string Indexed(std::string_view field, int64_t index) { return StrCat(field, "[", index, "]"); }

// Holds so much more for what the scope has.
absl::Status Hold(size_t bytes, RetrievalScope& scope) {
  return scope.held->TryAdd(bytes) ? absl::OkStatus() : UnaryRunner::MemoryFullError();
}

bool IsUtf8(std::string_view text) { return LongestValidUtf8(text).size() == text.size(); }

uint64_t RandomSeed() {
  thread_local std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

constexpr char kGenerateAdvice[] = "shorten the prompt or lower max_tokens, or send context_policy = SLIDE";
constexpr char kScoreAdvice[] = "shorten the item's context or continuation";

absl::Status ContextError(std::string_view field, int64_t tokens, int64_t limit, std::string_view advice) {
  absl::Status status =
      Error(absl::StatusCode::kInvalidArgument, Reason::kContextTooLong,
            StrCat(field, ": makes ", tokens, " tokens, where the context has room for ", limit, "; ", advice));
  SetField(status, field);
  return status;
}

// As many as fit and as the caller's key, if there is one, lets it have.
int64_t DefaultMaxTokens(int64_t room, const Caller* caller) {
  const int64_t most = std::min(kMaxTokensDefault, room);
  return caller == nullptr ? most : std::min(most, caller->generated_tokens_max.value_or(most));
}

// Found ones fill up to k behind those that are given.
int64_t NeighboursMax(const RetrievalScope& scope) {
  int64_t most = scope.search.k();
  for (const auto& [chunk, given] : scope.given) most = std::max<int64_t>(most, given.neighbours_size());
  return most;
}

absl::Status CheckPolicies(const pb::Retrieval& message) {
  if (!pb::FailurePolicy_IsValid(message.on_failure()))
    return FieldError("retrieval.on_failure", "is none of FailurePolicy");
  if (!pb::Alignment_IsValid(message.alignment())) return FieldError("retrieval.alignment", "is none of Alignment");
  if (!pb::NeighbourMode_IsValid(message.neighbour_mode()))
    return FieldError("retrieval.neighbour_mode", "is none of NeighbourMode");
  // Negated, so that NaN fails too.
  if (message.has_gate() && !(std::abs(message.gate()) <= kGateMax))
    return FieldError("retrieval.gate", "must be from -16 to 16");
  return absl::OkStatus();
}

}  // namespace

absl::Status RequestParser::CheckIds(const std::string& field,
                                     const google::protobuf::RepeatedField<int32_t>& ids) const {
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= model_.config().vocabulary)
      return FieldError(Indexed(field, i),
                        StrCat("must be from 0 to ", model_.config().vocabulary - 1, ", is ", ids[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenId>> RequestParser::Tokenise(const std::string& field, const std::string& text,
                                                             int64_t tokens_max) const {
  if (!IsUtf8(text)) return FieldError(field, "is not valid UTF-8");
  // It is tokenised before it is counted: this bounds that work.
  const int64_t bytes_max = tokens_max * kTextBytesPerTokenMax;
  if (static_cast<int64_t>(text.size()) > bytes_max)
    return FieldError(field,
                      StrCat("has ", text.size(), " bytes, at most ", bytes_max, " can fit the model's context"));
  std::vector<TokenId> ids;
  for (const Token& token : model_.tokenizer->Encode(text)) ids.push_back(token.id);
  return ids;
}

absl::StatusOr<std::vector<TokenId>> RequestParser::ParsePrompt(const pb::GenerateRequest& message,
                                                                int64_t tokens_max) const {
  switch (message.prompt_case()) {
    case pb::GenerateRequest::kText: {
      if (message.text().empty()) return FieldError("text", "must not be empty");
      RETRO_ASSIGN_OR_RETURN(std::vector<TokenId> ids, Tokenise("text", message.text(), tokens_max));
      if (ids.empty()) return FieldError("text", "has no token in the model's vocabulary");
      return ids;
    }
    case pb::GenerateRequest::kTokens:
      if (message.tokens().ids().empty()) return FieldError("tokens.ids", "must not be empty");
      RETRO_RETURN_IF_ERROR(CheckIds("tokens.ids", message.tokens().ids()));
      return std::vector<TokenId>(message.tokens().ids().begin(), message.tokens().ids().end());
    case pb::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return FieldError("prompt", "set text or tokens");
}

absl::StatusOr<int64_t> RequestParser::TokensMax(const pb::GenerateRequest& message) const {
  if (!pb::ContextPolicy_IsValid(message.context_policy()))
    return FieldError("context_policy", "is none of ContextPolicy");
  const int64_t context = model_.config().max_length;
  if (message.context_policy() != pb::CONTEXT_POLICY_SLIDE) return context;
  if (model_.config().learned_positions != LearnedPositions::kNone)
    return FieldError("context_policy", "this model has learned positions, and none past its context; use REFUSE");
  return context * kContextsMax;
}

absl::StatusOr<int64_t> RequestParser::ParseMaxTokens(const pb::GenerateRequest& message, int64_t prompt,
                                                      int64_t tokens_max, const Caller* caller) const {
  if (message.has_max_tokens() && message.max_tokens() < 1) return FieldError("max_tokens", "must be 1 or more");
  if (prompt >= tokens_max) {
    return ContextError(message.prompt_case() == pb::GenerateRequest::kText ? "text" : "tokens", prompt, tokens_max,
                        kGenerateAdvice);
  }
  if (!message.has_max_tokens()) return DefaultMaxTokens(tokens_max - prompt, caller);
  const int64_t total = prompt + static_cast<int64_t>(message.max_tokens());
  if (total > tokens_max) return ContextError("max_tokens", total, tokens_max, kGenerateAdvice);
  RETRO_RETURN_IF_ERROR(CheckGeneratedTokens(caller, message.max_tokens()));
  return static_cast<int64_t>(message.max_tokens());
}

absl::StatusOr<SamplingSettings> RequestParser::ParseSampling(const pb::Sampling& message) const {
  SamplingSettings settings;
  if (message.has_temperature()) settings.temperature = message.temperature();
  if (message.has_top_p()) settings.top_p = message.top_p();
  if (message.has_repetition_penalty()) settings.repetition_penalty = message.repetition_penalty();
  settings.top_k = static_cast<int>(std::min<int64_t>(message.top_k(), model_.config().vocabulary));
  settings.seed = message.has_seed() ? message.seed() : RandomSeed();
  // Each condition is written so that NaN fails it.
  if (!(settings.temperature >= 0 && settings.temperature <= kTemperatureMax))
    return FieldError("sampling.temperature", "must be from 0 to 100");
  if (!(settings.top_p > 0 && settings.top_p <= 1)) return FieldError("sampling.top_p", "must be above 0, at most 1");
  if (!(settings.repetition_penalty > 0 && settings.repetition_penalty <= kPenaltyMax))
    return FieldError("sampling.repetition_penalty", "must be above 0, at most 10");
  if (message.logit_bias().size() > kBiasesMax) return FieldError("sampling.logit_bias", "at most 1,024 tokens");
  for (const auto& [id, bias] : message.logit_bias()) {
    const std::string field = Indexed("sampling.logit_bias", id);
    if (id < 0 || id >= model_.config().vocabulary) return FieldError(field, "is no token of the vocabulary");
    if (!(bias >= -kBiasMax && bias <= kBiasMax)) return FieldError(field, "must be from -100 to 100");
    settings.logit_bias.emplace_back(id, bias);
  }
  return settings;
}

absl::Status RequestParser::ParseStops(const pb::GenerateRequest& message, GenerationRequest& request) const {
  if (message.stop_strings_size() > kStopStringsMax) return FieldError("stop_strings", "at most 16");
  for (int i = 0; i < message.stop_strings_size(); ++i) {
    const std::string& stop = message.stop_strings(i);
    const std::string field = Indexed("stop_strings", i);
    if (stop.empty() || stop.size() > kStopStringBytesMax) return FieldError(field, "must have 1 to 256 bytes");
    if (!IsUtf8(stop)) return FieldError(field, "is not valid UTF-8");
    request.stop_strings.push_back(stop);
  }
  if (message.stop_ids_size() > kStopIdsMax) return FieldError("stop_ids", "at most 64");
  for (int i = 0; i < message.stop_ids_size(); ++i) {
    if (message.stop_ids(i) < 0 || message.stop_ids(i) >= model_.config().vocabulary)
      return FieldError(Indexed("stop_ids", i), "is no token of the vocabulary");
    request.stop_ids.push_back(message.stop_ids(i));
  }
  return absl::OkStatus();
}

int64_t RequestParser::OffsetOf(const pb::Retrieval& message, int64_t prompt) const {
  if (message.has_offset()) return message.offset();
  return message.alignment() == pb::ALIGNMENT_PAPER ? 0 : prompt % model_.config().chunk_length;
}

absl::StatusOr<RetrievalSettings> RequestParser::ParseRetrieval(const pb::Retrieval& message, int64_t tokens_max,
                                                                const CallContext& call) const {
  const int64_t m = model_.config().chunk_length;
  RetrievalSettings settings;
  if (message.enabled() && !model_.can_retrieve())
    return FieldError("retrieval.enabled",
                      "this model has no chunked cross-attention; leave it out or set it to false");
  settings.enabled = message.has_enabled() ? message.enabled() : model_.can_retrieve();
  if (settings.enabled) RETRO_RETURN_IF_ERROR(CheckCollection(call.caller.get(), message.collection()));
  RETRO_RETURN_IF_ERROR(CheckPolicies(message));
  if (message.has_offset() && message.offset() >= m)
    return FieldError("retrieval.offset", StrCat("must be from 0 to ", m - 1));
  if (message.has_gate()) settings.gate = message.gate();
  if (message.on_failure() == pb::FAILURE_POLICY_GO_ON_WITHOUT) settings.on_failure = FailurePolicy::kGoOnWithout;
  RETRO_ASSIGN_OR_RETURN(settings.timeout_ms, LookupTimeout(message));

  auto scope = std::make_shared<RetrievalScope>();
  RETRO_ASSIGN_OR_RETURN(scope->search, SearchOf(message, model_.info.trained_neighbours, neighbours_max_));
  scope->search_key = scope->search.SerializeAsString();
  scope->append = message.neighbour_mode() == pb::NEIGHBOUR_MODE_APPEND;
  scope->go_on_without = settings.on_failure == FailurePolicy::kGoOnWithout;
  scope->timeout_ms = settings.timeout_ms;
  if (call.caller != nullptr) scope->key = call.caller->key;
  scope->held.emplace(budget_, scope->key);
  RETRO_RETURN_IF_ERROR(Hold(scope->search.SpaceUsedLong() + scope->search_key.size(), *scope));
  RETRO_RETURN_IF_ERROR(ParseGiven(message, tokens_max, *scope));
  settings.neighbours_max = NeighboursMax(*scope);
  settings.scope = std::move(scope);
  return settings;
}

absl::Status RequestParser::CheckGiven(const std::string& field, const retriever::v1::Neighbour& neighbour) const {
  if (neighbour.chunk().text().empty() && neighbour.chunk().token_ids().empty())
    return FieldError(field + ".chunk", "must have text or token_ids");
  RETRO_RETURN_IF_ERROR(CheckIds(field + ".chunk.token_ids", neighbour.chunk().token_ids()));
  RETRO_RETURN_IF_ERROR(CheckIds(field + ".continuation.token_ids", neighbour.continuation().token_ids()));
  return CheckGivenMetadata(field + ".metadata", neighbour);
}

absl::Status RequestParser::ParseGiven(const pb::Retrieval& message, int64_t tokens_max, RetrievalScope& scope) const {
  const int64_t chunks_max = tokens_max / model_.config().chunk_length + 1;
  size_t bytes = 0;
  for (const pb::ChunkNeighbours& given : message.neighbours()) bytes += given.ByteSizeLong();
  if (bytes > kGivenBytesMax)
    return FieldError("retrieval.neighbours", StrCat("have ", bytes, " bytes, at most ", kGivenBytesMax));
  for (int i = 0; i < message.neighbours_size(); ++i) {
    const pb::ChunkNeighbours& given = message.neighbours(i);
    const std::string field = Indexed("retrieval.neighbours", i);
    if (given.chunk_number() >= chunks_max)
      return FieldError(field + ".chunk_number", StrCat("must be below ", chunks_max));
    if (given.neighbours_size() > neighbours_max_)
      return FieldError(field + ".neighbours", StrCat("at most ", neighbours_max_));
    for (int n = 0; n < given.neighbours_size(); ++n)
      RETRO_RETURN_IF_ERROR(CheckGiven(Indexed(field + ".neighbours", n), given.neighbours(n)));
    pb::ChunkNeighbours own = given;
    for (retriever::v1::Neighbour& neighbour : *own.mutable_neighbours()) {
      // Ids that come with a given neighbour are the model's, as in the events that a run is replayed from.
      tokens_.Fit(/*same_tokenizer=*/true, &neighbour);
    }
    RETRO_RETURN_IF_ERROR(Hold(own.SpaceUsedLong(), scope));
    if (!scope.given.emplace(own.chunk_number(), std::move(own)).second)
      return FieldError(field + ".chunk_number", "occurs twice");
  }
  return absl::OkStatus();
}

absl::StatusOr<GenerationRequest> RequestParser::ParseGenerate(const pb::GenerateRequest& message,
                                                               const CallContext& call) const {
  GenerationRequest request;
  request.slide = message.context_policy() == pb::CONTEXT_POLICY_SLIDE;
  RETRO_ASSIGN_OR_RETURN(const int64_t tokens_max, TokensMax(message));
  RETRO_ASSIGN_OR_RETURN(request.prompt, ParsePrompt(message, tokens_max));
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  RETRO_ASSIGN_OR_RETURN(request.max_tokens, ParseMaxTokens(message, prompt, tokens_max, call.caller.get()));
  RETRO_ASSIGN_OR_RETURN(request.sampling, ParseSampling(message.sampling()));
  if (message.top_logprobs() > kTopLogprobsMax) return FieldError("top_logprobs", "must be from 0 to 20");
  request.sampling.top_logprobs = static_cast<int>(message.top_logprobs());
  RETRO_RETURN_IF_ERROR(ParseStops(message, request));
  RETRO_ASSIGN_OR_RETURN(request.retrieval, ParseRetrieval(message.retrieval(), tokens_max, call));
  request.retrieval.offset = OffsetOf(message.retrieval(), prompt);
  if (message.echo()) request.echo_from = 0;
  request.attribution = message.attribution();
  request.arrival = Clock::now();
  request.deadline = call.deadline;
  request.request_id = call.request_id;
  request.traceparent = call.traceparent;
  if (call.caller != nullptr) request.key = call.caller->key;
  return request;
}

absl::StatusOr<GenerationRequest> RequestParser::ParseItem(const std::string& path, const pb::ScoreItem& item,
                                                           int64_t* context) const {
  GenerationRequest request;
  if (item.context_case() == pb::ScoreItem::CONTEXT_NOT_SET)
    return FieldError(path + ".context", "set context_text or context_tokens");
  if (item.continuation_case() == pb::ScoreItem::CONTINUATION_NOT_SET)
    return FieldError(path + ".continuation", "set continuation_text or continuation_tokens");
  const auto parse = [&](bool is_text, const std::string& field, const std::string& text,
                         const pb::TokenIds& tokens) -> absl::StatusOr<std::vector<TokenId>> {
    if (is_text) return Tokenise(StrCat(path, ".", field, "_text"), text, model_.config().max_length);
    RETRO_RETURN_IF_ERROR(CheckIds(StrCat(path, ".", field, "_tokens.ids"), tokens.ids()));
    return std::vector<TokenId>(tokens.ids().begin(), tokens.ids().end());
  };
  RETRO_ASSIGN_OR_RETURN(request.prompt, parse(item.context_case() == pb::ScoreItem::kContextText, "context",
                                               item.context_text(), item.context_tokens()));
  RETRO_ASSIGN_OR_RETURN(const std::vector<TokenId> continuation,
                         parse(item.continuation_case() == pb::ScoreItem::kContinuationText, "continuation",
                               item.continuation_text(), item.continuation_tokens()));
  if (continuation.empty()) return FieldError(path + ".continuation", "must not be empty");
  if (request.prompt.empty()) {
    const Tokenizer& tokenizer = *model_.tokenizer;
    request.prompt.push_back(tokenizer.bos_id() >= 0 ? tokenizer.bos_id() : std::max(tokenizer.eos_id(), 0));
  }
  *context = static_cast<int64_t>(request.prompt.size());
  request.echo_from = *context;
  request.prompt.insert(request.prompt.end(), continuation.begin(), continuation.end());
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length > model_.config().max_length) return ContextError(path, length, model_.config().max_length, kScoreAdvice);
  request.sampling.top_logprobs = 1;
  return request;
}

absl::StatusOr<std::vector<GenerationRequest>> RequestParser::ParseScore(const pb::ScoreRequest& message,
                                                                         const CallContext& call) const {
  if (message.items_size() < 1 || message.items_size() > kScoreItemsMax) return FieldError("items", "must be 1 to 64");
  // Once: its scope, which may be large, is shared by all items.
  RETRO_ASSIGN_OR_RETURN(const RetrievalSettings retrieval,
                         ParseRetrieval(message.retrieval(), model_.config().max_length, call));
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < message.items_size(); ++i) {
    int64_t context = 0;
    RETRO_ASSIGN_OR_RETURN(GenerationRequest request, ParseItem(Indexed("items", i), message.items(i), &context));
    request.retrieval = retrieval;
    request.retrieval.offset = OffsetOf(message.retrieval(), context);
    request.arrival = Clock::now();
    request.deadline = call.deadline;
    request.request_id = call.request_id;
    request.traceparent = call.traceparent;
    if (call.caller != nullptr) request.key = call.caller->key;
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace retro
