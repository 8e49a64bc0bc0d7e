#include "generator_service/serve/score_call.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/handover.h"
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

// The engine's view of one item.
class ScoreCall::Item : public EventSink {
 public:
  Item(std::shared_ptr<ScoreCall> call, size_t item) : call_(std::move(call)), item_(item) {}

  void OnWaited(Clock::duration time) override { call_->metrics_.OnWaited(time); }

  void OnToken(TokenOutput output) override {
    generator::v1::ScoreResult& scores = result();
    scores.add_tokens(output.token.id);
    scores.add_logprobs(output.token.logprob);
    scores.add_greedy(!output.token.top.empty() && output.token.top.front().id == output.token.id);
    scores.add_raw(std::move(output.raw));
    scores.set_total_logprob(scores.total_logprob() + output.token.logprob);
  }

  void OnChunk(ChunkOutput output) override {
    call_->metrics_.OnChunk(output);
    if (call_->retrieval_bytes_ > kRetrievalBytesMax) return;
    generator::v1::RetrievalEvent event = RetrievalMessage(output);
    call_->retrieval_bytes_ += event.ByteSizeLong();
    if (call_->retrieval_bytes_ > kRetrievalBytesMax) return call_->Fail(TooLargeError());
    if (!call_->held_.TryAdd(event.SpaceUsedLong())) return call_->Fail(UnaryRunner::MemoryFullError());
    *result().add_retrievals() = std::move(event);
  }

  void OnFinish(FinishOutput output) override {
    call_->metrics_.OnFinish(output);
    if (output.cause != FinishCause::kDrained) return call_->OnItemEnd(item_);
    call_->Fail(
        Error(absl::StatusCode::kUnavailable, Reason::kShuttingDown, "this server is shutting down; ask another one"));
  }

  void OnError(absl::Status status) override { call_->Fail(status); }
  bool HasRoom() const override { return true; }

 private:
  generator::v1::ScoreResult& result() { return *call_->response_.mutable_results(static_cast<int>(item_)); }

  const std::shared_ptr<ScoreCall> call_;
  const size_t item_;
};

std::shared_ptr<ScoreCall> ScoreCall::Create(grpc::CallbackServerContext& context, CallRecord record, HeldBytes held,
                                             Engine& engine, GeneratorMetrics& metrics, PeerWatch& peers,
                                             grpc::ByteBuffer* reply) {
  std::shared_ptr<ScoreCall> call(
      new ScoreCall(context, std::move(record), std::move(held), engine, metrics, peers, reply));
  call->self_ = call;
  return call;
}

void ScoreCall::Start(absl::StatusOr<std::vector<GenerationRequest>> requests) {
  if (!requests.ok()) return Fail(requests.status());
  for (size_t i = 0; i < requests->size(); ++i) response_.add_results();
  {
    MutexLock lock(mutex_);
    requests_ = *std::move(requests);
  }
  SubmitMore();
}

// The first item waits for a place of its own, which the items after it inherit: they are not refused half-way. Those
// beside it take only places that nobody else waits for.
absl::Status ScoreCall::SubmitNext() {
  if (cancelled_) return CallerLeftError(requests_[next_].arrival, requests_[next_].deadline, Clock::now());
  const SessionPlace place = !under_way_.empty() ? SessionPlace::kSpare
                             : next_ == 0        ? SessionPlace::kNew
                                                 : SessionPlace::kOfEnded;
  GenerationRequest request = requests_[next_];
  request.arrival = Clock::now();  // of an item: the ones before it are no time in a queue
  const absl::StatusOr<uint64_t> session =
      engine_.Submit(std::move(request), std::make_shared<Item>(self_, next_), place);
  if (session.ok()) under_way_.emplace(next_++, *session);
  return session.status();
}

// The engine may be at work on an item, or done with it, when Submit returns: what it has to say then waits for the
// mutex.
void ScoreCall::SubmitMore() {
  absl::Status failed;
  bool complete = false;
  {
    MutexLock lock(mutex_);
    if (ended_) return;
    absl::Status submitted;
    while (submitted.ok() && next_ < requests_.size() && under_way_.size() < kItemsAtOnceMax) submitted = SubmitNext();
    if (under_way_.empty()) {
      failed = submitted;
      complete = submitted.ok();
      ended_ = complete;
    }
  }
  if (complete) return Answer();
  if (!failed.ok()) Fail(failed);
}

void ScoreCall::OnItemEnd(size_t item) {
  {
    MutexLock lock(mutex_);
    under_way_.erase(item);
  }
  SubmitMore();
}

void ScoreCall::Answer() {
  absl::Status answered;
  if (held_.TryAdd(response_.ByteSizeLong())) {
    SerializeMessage(response_, *reply_);
  } else {
    answered = UnaryRunner::MemoryFullError();
  }
  End(answered);
}

void ScoreCall::Fail(const absl::Status& status) {
  std::map<size_t, uint64_t> under_way;
  {
    MutexLock lock(mutex_);
    if (ended_) return;
    ended_ = true;
    under_way = std::move(under_way_);
  }
  for (const auto& [item, session] : under_way) engine_.Cancel(session);
  End(status);
}

// The last thing that a call does. An answer that nobody takes would keep its memory for as long as the connection
// lives.
void ScoreCall::End(const absl::Status& status) {
  sent_ = peers_.Begin(context_);
  const grpc::Status answer = record_.Finish(status);
  HandOver(this);
  Finish(answer);
}

// Each item that is under way ends with an error then; if there is none, the next one is not submitted.
void ScoreCall::OnCancel() {
  std::map<size_t, uint64_t> under_way;
  {
    MutexLock lock(mutex_);
    cancelled_ = true;
    under_way = under_way_;
  }
  for (const auto& [item, session] : under_way) engine_.Cancel(session);
}

void ScoreCall::OnDone() {
  TakeOver(this);
  peers_.End(sent_);
  // Last: this may be the end of it.
  const std::shared_ptr<ScoreCall> self = std::move(self_);
}

}  // namespace retro
