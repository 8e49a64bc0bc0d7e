#include "cli/scorer.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "cli/connection.h"
#include "cli/part_cutter.h"
#include "common/base/error.h"
#include "common/rpc/status.h"

namespace retro::cli {
namespace {

constexpr size_t kBytesPerToken = 2;    // a piece is so long that it fits, unless its tokens are shorter than this
constexpr size_t kPieceBytesMin = 64;   // whatever the model
constexpr size_t kDivisibleBytes = 16;  // what is shorter is not cut

}  // namespace

void ScoreTotals::Add(const std::string& text, const gen::ScoreResult& result) {
  bytes += text.size();
  tokens += static_cast<uint64_t>(result.tokens_size());
  greedy += static_cast<uint64_t>(std::count(result.greedy().begin(), result.greedy().end(), true));
  for (const gen::RetrievalEvent& event : result.retrievals()) {
    chunks += event.neighbours().neighbours().empty() ? 0 : 1;
    degraded += event.degradation() > gen::DEGRADATION_NONE ? 1 : 0;
  }
  logprob += result.total_logprob();
}

void ScoreTotals::Add(const ScoreTotals& other) {
  bytes += other.bytes;
  tokens += other.tokens;
  greedy += other.greedy;
  chunks += other.chunks;
  degraded += other.degraded;
  logprob += other.logprob;
}

double ScoreTotals::BitsPerByte() const {
  return bytes == 0 ? 0 : -logprob / std::numbers::ln2 / static_cast<double>(bytes);
}

double ScoreTotals::Perplexity() const { return tokens == 0 ? 1 : std::exp(-logprob / static_cast<double>(tokens)); }

Scorer::Scorer(gen::GeneratorService::Stub& stub, gen::Retrieval retrieval, double timeout_s, Sink sink)
    : stub_(stub), retrieval_(std::move(retrieval)), timeout_s_(timeout_s), sink_(std::move(sink)) {}

grpc::Status Scorer::Start() {
  gen::GetModelResponse model;
  Call call(timeout_s_);
  grpc::Status status = stub_.GetModel(call.context(), gen::GetModelRequest(), &model);
  if (!status.ok()) return status;
  // Whole chunks, so that their borders stay where they are when the window moves on.
  const size_t chunk = std::max<size_t>(1, model.chunk_size());
  context_tokens_max_ = std::max(chunk, model.context_length() / 2 / chunk * chunk);
  const size_t room = model.context_length() > context_tokens_max_ ? model.context_length() - context_tokens_max_ : 0;
  piece_bytes_ = std::max(kPieceBytesMin, kBytesPerToken * room);
  return status;
}

void Scorer::BeginText(std::string context) {
  context_ = std::move(context);
  preceding_.clear();
}

grpc::Status Scorer::Score(const std::string& text) {
  gen::ScoreResponse response;
  grpc::Status status = Ask(text, &response);
  if (ReasonOf(FromGrpcStatus(status)) == Reason::kContextTooLong && text.size() >= kDivisibleBytes) {
    PartCutter cutter((text.size() + 1) / 2);
    cutter.Append(text);
    cutter.Finish();
    while (!cutter.empty()) {
      if (status = Score(cutter.Take()); !status.ok()) return status;
    }
    return grpc::Status::OK;
  }
  if (!status.ok()) return status;
  if (response.results_size() != 1) return {grpc::StatusCode::INTERNAL, "the generator answered without a result"};
  const gen::ScoreResult& result = response.results(0);
  sink_(text, result);
  preceding_.insert(preceding_.end(), result.tokens().begin(), result.tokens().end());
  if (preceding_.size() > context_tokens_max_) {
    preceding_.erase(preceding_.begin(), preceding_.end() - static_cast<ptrdiff_t>(context_tokens_max_));
  }
  return grpc::Status::OK;
}

grpc::Status Scorer::Ask(const std::string& text, gen::ScoreResponse* response) {
  gen::ScoreRequest request;
  *request.mutable_retrieval() = retrieval_;
  gen::ScoreItem& item = *request.add_items();
  item.set_continuation_text(text);
  if (preceding_.empty()) {
    item.set_context_text(context_);
  } else {
    item.mutable_context_tokens()->mutable_ids()->Assign(preceding_.begin(), preceding_.end());
  }
  Call call(timeout_s_);
  return stub_.Score(call.context(), request, response);
}

}  // namespace retro::cli
