#include "generator_service/engine/session.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "generator_service/engine/shared_run.h"

namespace retro {
namespace {

// Of the caller's deadline, kept back from a look-up so that its failure can still be told.
constexpr std::chrono::milliseconds kDeadlineMargin{20};

// Faults of the request keep their code; whatever else keeps neighbours away is the retriever's doing.
absl::Status RetrievalError(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
      return status;
    default:
      return Error(absl::StatusCode::kUnavailable, Reason::kRetrievalFailed,
                   StrCat("neighbours could not be fetched: ", MessageOf(status),
                          "; retry, or send retrieval.on_failure = GO_ON_WITHOUT"));
  }
}

}  // namespace

Session::Session(uint64_t id, GenerationRequest request, std::shared_ptr<EventSink> sink, const ModelFacts& facts)
    : id_(id),
      request_(std::move(request)),
      sink_(std::move(sink)),
      facts_(facts),
      geometry_(facts.chunk_length, request_.retrieval.offset),
      window_(facts.context_length, facts.chunk_length),
      prompt_length_(static_cast<int64_t>(request_.prompt.size())),
      tokens_(request_.prompt),
      seen_(facts.vocabulary),
      bytes_(*facts.tokenizer),
      text_(request_.stop_strings) {
  for (const TokenId token : tokens_) seen_.Add(token);
  totals_.prompt_tokens = prompt_length_;
}

int64_t Session::cached_tokens_max() const {
  const int64_t tokens = prompt_length_ + request_.max_tokens;
  return request_.slide ? std::min(tokens, facts_.context_length) : tokens;
}

int64_t Session::neighbour_tokens_max() const {
  return request_.retrieval.enabled ? request_.retrieval.neighbours_max * facts_.neighbour_tokens : 0;
}

SessionState Session::state() const {
  if (finished_) return SessionState::kFinished;
  if (!admitted_) return SessionState::kWaitingForPlace;
  if (Runnable() == 0) return SessionState::kWaitingForNeighbours;
  return fed_ < prompt_length_ ? SessionState::kPrefill : SessionState::kDecode;
}

void Session::Admit(Clock::time_point now) {
  EndWait(now);
  admitted_ = true;
  // Tokens before the first one with logits of its own are known as they are.
  if (request_.echo_from == 0) EmitPromptToken(0, ScoredToken{tokens_.front(), 0, {}});
  if (request_.max_tokens == 0 && prompt_length_ == 1) Finish(FinishCause::kLength, "", now);
}

void Session::EndWait(Clock::time_point now) {
  totals_.queue_time = now - request_.arrival;
  sink_->OnWaited(totals_.queue_time);
}

// All complete chunks whose neighbours are not known, as long as those have room; else as many as have room, once half
// of it is free, so that they come in few look-ups and before they are needed.
int64_t Session::ChunksToLookUp() const {
  const int64_t wanted = geometry_.CompleteChunks(FeedLimit()) - neighbours_.known();
  const int64_t held_max =
      std::max<int64_t>(kNeighboursAheadMax / std::max<int64_t>(request_.retrieval.neighbours_max, 1), 2);
  const int64_t room = held_max - neighbours_.held();
  if (wanted <= room) return wanted;
  return 2 * room >= held_max ? room : 0;
}

std::optional<LookupRequest> Session::NextLookup(uint64_t lookup, Clock::time_point now) {
  if (finished_ || !admitted_ || !request_.retrieval.enabled || pending_lookup_.has_value()) return std::nullopt;
  const int64_t known = neighbours_.known();
  const int64_t chunks = ChunksToLookUp();
  if (chunks <= 0) return std::nullopt;

  LookupRequest request;
  for (int64_t chunk = known; chunk < known + chunks; ++chunk) {
    request.chunks.push_back({chunk, std::vector<TokenId>(tokens_.begin() + geometry_.Begin(chunk),
                                                          tokens_.begin() + geometry_.End(chunk))});
  }
  request.lookup = lookup;
  request.scope = request_.retrieval.scope;
  request.deadline = std::min(now + request_.retrieval.timeout_ms, request_.deadline - kDeadlineMargin);
  request.request_id = request_.request_id;
  request.traceparent = request_.traceparent;
  pending_lookup_ = lookup;
  pending_chunks_ = chunks;
  lookup_started_ = now;
  lookup_deadline_ = request.deadline;
  NoteStanding(now);
  return request;
}

void Session::OnNeighbours(absl::StatusOr<LookupAnswer> answer, Clock::time_point now) {
  const Clock::duration lookup_time = now - lookup_started_;
  pending_lookup_.reset();
  if (answer.ok() && static_cast<int64_t>(answer->chunks.size()) != pending_chunks_) {
    answer = Error(absl::StatusCode::kInternal, Reason::kInternal, "a look-up gave a wrong number of answers");
  }
  if (!answer.ok()) {
    if (request_.retrieval.on_failure == FailurePolicy::kFail) return Fail(RetrievalError(answer.status()), now);
    LookupAnswer without;
    for (int64_t i = 0; i < pending_chunks_; ++i) {
      FoundNeighbours& none = without.chunks.emplace_back();
      none.degradation = DegradationOf(answer.status());
      none.degradation_message = std::string(MessageOf(answer.status()));
    }
    answer = std::move(without);
  }
  Store(*std::move(answer), lookup_time);
  NoteStanding(now);
}

void Session::Store(LookupAnswer answer, Clock::duration lookup_time) {
  if (answer.asked) ++totals_.lookups;
  for (FoundNeighbours& found : answer.chunks) {
    const int64_t chunk = neighbours_.known();
    neighbours_.Add(found.rows);
    sink_->OnChunk({chunk, geometry_.Begin(chunk), geometry_.End(chunk), std::move(found), lookup_time});
  }
}

// The time that nothing could run for want of neighbours, begun or ended by what has just changed.
void Session::NoteStanding(Clock::time_point now) {
  const bool standing = !finished_ && pending_lookup_.has_value() && Runnable() == 0;
  if (standing && !standing_since_.has_value()) standing_since_ = now;
  if (!standing && standing_since_.has_value()) {
    totals_.retrieval_time += now - *standing_since_;
    standing_since_.reset();
  }
}

// Known tokens that are worth feeding: where nothing is generated, the last one predicts nothing.
int64_t Session::FeedLimit() const { return request_.max_tokens == 0 ? KnownTokens() - 1 : KnownTokens(); }

int64_t Session::Runnable() const {
  if (finished_ || !admitted_) return 0;
  int64_t limit = FeedLimit();
  if (request_.retrieval.enabled) {
    limit = std::min(limit, geometry_.End(neighbours_.known()) - 1);
  }
  if (request_.slide) limit = std::min(limit, fed_ + window_.Room(fed_));
  return std::max<int64_t>(limit - fed_, 0);
}

int64_t Session::EncoderRows(int64_t tokens) const {
  int64_t rows = 0;
  if (!request_.retrieval.enabled) return rows;
  const int64_t end = geometry_.CompleteChunks(fed_ + tokens);
  for (int64_t chunk = geometry_.CompleteChunks(fed_); chunk < end; ++chunk) rows += neighbours_.Of(chunk).count;
  return rows;
}

int64_t Session::TokensWithinRows(int64_t tokens, int64_t rows) const {
  if (!request_.retrieval.enabled) return tokens;
  const int64_t end = geometry_.CompleteChunks(fed_ + tokens);
  for (int64_t chunk = geometry_.CompleteChunks(fed_); chunk < end; ++chunk) {
    rows -= neighbours_.Of(chunk).count;
    if (rows < 0) return geometry_.End(chunk) - 1 - fed_;
  }
  return tokens;
}

// Rows are wanted for the prompt's tokens that predict an echoed one, and for the last known token, which predicts the
// next.
int64_t Session::LogitRows(int64_t tokens) const {
  const int64_t end = fed_ + tokens;
  int64_t first = request_.max_tokens > 0 ? prompt_length_ - 1 : end;
  if (request_.echo_from.has_value()) first = std::max<int64_t>(*request_.echo_from - 1, 0);
  return std::max<int64_t>(end - std::max(first, fed_), 0);
}

int64_t Session::ScoredRows(int64_t tokens) const { return request_.echo_from.has_value() ? LogitRows(tokens) : 0; }

StepItem Session::Slice(int64_t tokens) const {
  StepItem item;
  item.sequence = id_;
  item.begins = fed_ == 0;
  item.retrieval = request_.retrieval.enabled;
  item.offset = request_.retrieval.offset;
  item.gate = request_.retrieval.gate;
  item.slide = request_.slide;
  item.tokens = std::span(tokens_).subspan(static_cast<size_t>(fed_), static_cast<size_t>(tokens));
  if (request_.retrieval.enabled) {
    const int64_t end = geometry_.CompleteChunks(fed_ + tokens);
    for (int64_t chunk = geometry_.CompleteChunks(fed_); chunk < end; ++chunk) {
      item.neighbours.push_back(neighbours_.Of(chunk));
    }
  }
  item.logit_rows = LogitRows(tokens);
  item.want_attention = request_.attribution && item.logit_rows > 0 && fed_ + tokens == KnownTokens();
  if (OnlySamples(item)) item.sampling = {&request_.sampling, &seen_, static_cast<uint64_t>(KnownTokens())};
  return item;
}

// Whether the item's logits are of one row, which predicts the next token, and nobody asks for anything else of them.
bool Session::OnlySamples(const StepItem& item) const {
  const int64_t end = fed_ + static_cast<int64_t>(item.tokens.size());
  return request_.max_tokens > 0 && end == KnownTokens() && item.logit_rows == 1 && !item.want_attention &&
         request_.sampling.top_logprobs == 0;
}

void Session::OnStep(int64_t tokens, const StepOutput& output, Sampler& sampler, Clock::time_point now) {
  const int64_t rows = LogitRows(tokens);
  fed_ += tokens;
  if (request_.retrieval.enabled) neighbours_.ForgetBefore(geometry_.AttendedChunk(fed_ - 1));
  NoteStanding(now);
  if (request_.echo_from.has_value() && rows > 0) EmitPromptTokens(fed_ - rows, output, sampler, now);
  if (finished_) return;
  if (request_.max_tokens == 0) {
    if (fed_ == FeedLimit()) Finish(FinishCause::kLength, "", now);
    return;
  }
  if (fed_ < KnownTokens()) return;
  if (output.sampled.has_value()) return EmitSampled(*output.sampled, output, now);
  const size_t row = static_cast<size_t>(rows - 1) * static_cast<size_t>(facts_.vocabulary);
  const auto logits = output.logits.subspan(row, static_cast<size_t>(facts_.vocabulary));
  absl::StatusOr<ScoredToken> token =
      sampler.Sample(logits, request_.sampling, seen_, static_cast<uint64_t>(KnownTokens()));
  if (!token.ok()) return Fail(token.status(), now);
  EmitSampled(*std::move(token), output, now);
}

// Row i of the output belongs to the token at first_row + i and predicts the one after it.
void Session::EmitPromptTokens(int64_t first_row, const StepOutput& output, Sampler& sampler, Clock::time_point now) {
  const auto width = static_cast<size_t>(facts_.vocabulary);
  for (int64_t row = first_row; row < fed_ && row + 1 < prompt_length_; ++row) {
    const auto logits = output.logits.subspan(static_cast<size_t>(row - first_row) * width, width);
    absl::StatusOr<ScoredToken> token =
        sampler.Score(logits, tokens_[static_cast<size_t>(row) + 1], request_.sampling.top_logprobs);
    if (!token.ok()) return Fail(token.status(), now);
    if (row + 1 >= *request_.echo_from) EmitPromptToken(row + 1, *std::move(token));
  }
}

void Session::EmitPromptToken(int64_t position, ScoredToken token) {
  // The first one's bytes depend on the token before it, which is not sent.
  if (position > 0 && position == *request_.echo_from) bytes_.Next(tokens_[static_cast<size_t>(position) - 1]);
  TokenOutput event;
  event.position = position;
  event.raw = bytes_.Next(token.id);
  event.text = text_.AppendPrompt(event.raw);
  event.token = std::move(token);
  event.prompt = true;
  sink_->OnToken(std::move(event));
}

void Session::EmitSampled(ScoredToken token, const StepOutput& output, Clock::time_point now) {
  const TokenId id = token.id;
  const int64_t position = KnownTokens();
  if (totals_.generated_tokens == 0) {
    totals_.time_to_first_token = now - request_.arrival;
    // Where the prompt is not sent, the first token's bytes still depend on the prompt's last.
    if (!request_.echo_from.has_value()) bytes_.Next(tokens_.back());
  }
  tokens_.push_back(id);
  seen_.Add(id);
  ++totals_.generated_tokens;

  TokenOutput event;
  event.position = position;
  event.token = std::move(token);
  event.raw = bytes_.Next(id);
  TextAssembler::Output text = text_.Append(event.raw);
  event.text = std::move(text.text);
  if (request_.attribution) event.attributions = Attribute(position, output.attention);
  const std::string raw = event.raw;
  sink_->OnToken(std::move(event));

  if (text.stop.has_value()) return Finish(FinishCause::kStop, request_.stop_strings[*text.stop], now);
  if (id == facts_.tokenizer->eos_id()) return Finish(FinishCause::kEos, raw, now);
  if (std::find(request_.stop_ids.begin(), request_.stop_ids.end(), id) != request_.stop_ids.end())
    return Finish(FinishCause::kStop, raw, now);
  if (totals_.generated_tokens >= request_.max_tokens) Finish(FinishCause::kLength, "", now);
}

// The token at `position` was predicted by the one before it, which attended to these neighbours.
std::vector<NeighbourAttribution> Session::Attribute(int64_t position, const std::vector<float>& attention) const {
  std::vector<NeighbourAttribution> attributions;
  const int64_t chunk = geometry_.AttendedChunk(position - 1);
  if (!request_.retrieval.enabled || chunk < 0) return attributions;
  const ChunkNeighbours& rows = neighbours_.Of(chunk);
  if (rows.count == 0) return attributions;
  const size_t width = rows.tokens.size() / static_cast<size_t>(rows.count);
  for (int64_t i = 0; i < rows.count; ++i) {
    const auto row = std::span(rows.tokens).subspan(static_cast<size_t>(i) * width, width);
    NeighbourAttribution& one = attributions.emplace_back();
    one.neighbour = i;
    one.attention = static_cast<size_t>(i) < attention.size() ? attention[static_cast<size_t>(i)] : 0;
    one.shared_run = LongestSharedRun(tokens_, row, facts_.pad_id);
  }
  return attributions;
}

void Session::Fail(const absl::Status& status, Clock::time_point now) {
  if (finished_) return;
  if (!admitted_) EndWait(now);
  finished_ = true;
  sink_->OnError(status);
}

void Session::Drain(Clock::time_point now) {
  if (finished_) return;
  if (!admitted_) EndWait(now);
  totals_.tokens = tokens_;
  Finish(FinishCause::kDrained, "", now);
}

void Session::Finish(FinishCause cause, std::string stopped_by, Clock::time_point now) {
  finished_ = true;
  NoteStanding(now);
  totals_.cause = cause;
  totals_.stopped_by = std::move(stopped_by);
  totals_.text = text_.Finish();
  totals_.total_time = now - request_.arrival;
  sink_->OnFinish(totals_);
}

}  // namespace retro
