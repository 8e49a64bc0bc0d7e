#include "generator_service/serve/score_call.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/message.h"
#include "generator_service/serve/event_messages.h"

namespace retro {
namespace {

absl::Status TooLargeError() {
  return FieldError("items", StrCat("their retrieval events have more than ", ScoreCall::kRetrievalBytesMax,
                                    " bytes; send fewer items a call, or a smaller retrieval.k"));
}

}  // namespace

std::shared_ptr<ScoreCall> ScoreCall::Create(CallRecord record, HeldBytes held, Engine& engine,
                                             GeneratorMetrics& metrics, grpc::ByteBuffer* reply) {
  std::shared_ptr<ScoreCall> call(new ScoreCall(std::move(record), std::move(held), engine, metrics, reply));
  call->self_ = call;
  return call;
}

void ScoreCall::Start(absl::StatusOr<std::vector<GenerationRequest>> requests) {
  if (!requests.ok()) return End(requests.status());
  requests_ = *std::move(requests);
  SubmitNext();
}

// The engine may already be at work on the item when Submit returns, and go on with the next one: what is noted here is
// only ever the newest session's name.
void ScoreCall::SubmitNext() {
  if (next_ == requests_.size()) return Answer();
  response_.add_results();
  const bool first = next_ == 0;
  GenerationRequest request = std::move(requests_[next_++]);
  request.arrival = Clock::now();  // of an item: the ones before it are no time in a queue
  std::optional<absl::Status> failed;
  {
    MutexLock lock(mutex_);
    if (cancelled_) {
      failed = CallerGoneError(/*deadline_passed=*/false);
    } else {
      const absl::StatusOr<uint64_t> session =
          first ? engine_.Submit(std::move(request), self_) : engine_.SubmitSuccessor(std::move(request), self_);
      if (session.ok()) {
        session_ = *session;
      } else {
        failed = session.status();
      }
    }
  }
  if (failed.has_value()) End(*failed);
}

void ScoreCall::Answer() {
  if (!held_.TryAdd(response_.ByteSizeLong())) return End(UnaryRunner::MemoryFullError());
  SerializeMessage(response_, *reply_);
  End(absl::OkStatus());
}

void ScoreCall::OnCancel() {
  {
    MutexLock lock(mutex_);
    cancelled_ = true;
  }
  CancelSession();
}

void ScoreCall::CancelSession() {
  std::optional<uint64_t> session;
  {
    MutexLock lock(mutex_);
    session = session_;
  }
  if (session.has_value()) engine_.Cancel(*session);
}

void ScoreCall::OnDone() {
  // Last: this may be the end of it.
  const std::shared_ptr<ScoreCall> self = std::move(self_);
}

void ScoreCall::OnToken(TokenOutput output) {
  generator::v1::ScoreResult& result = *response_.mutable_results(response_.results_size() - 1);
  result.add_tokens(output.token.id);
  result.add_logprobs(output.token.logprob);
  result.add_greedy(!output.token.top.empty() && output.token.top.front().id == output.token.id);
  result.add_raw(std::move(output.raw));
  result.set_total_logprob(result.total_logprob() + output.token.logprob);
}

void ScoreCall::OnChunk(ChunkOutput output) {
  metrics_.OnChunk(output);
  if (too_large_) return;
  generator::v1::RetrievalEvent event = RetrievalMessage(output);
  retrieval_bytes_ += event.ByteSizeLong();
  too_large_ = retrieval_bytes_ > kRetrievalBytesMax;
  if (too_large_) return CancelSession();
  *response_.mutable_results(response_.results_size() - 1)->add_retrievals() = std::move(event);
}

void ScoreCall::OnFinish(FinishOutput output) {
  metrics_.OnFinish(output);
  if (too_large_) return End(TooLargeError());
  if (output.cause == FinishCause::kDrained) {
    return End(
        Error(absl::StatusCode::kUnavailable, Reason::kShuttingDown, "this server is shutting down; ask another one"));
  }
  SubmitNext();
}

void ScoreCall::OnError(absl::Status status) { End(too_large_ ? TooLargeError() : status); }

}  // namespace retro
