#include "generator_service/serve/generate_stream.h"

#include <utility>

#include "common/base/handover.h"
#include "common/rpc/message.h"
#include "generator_service/serve/event_messages.h"

namespace retro {

namespace pb = ::retro::generator::v1;

std::shared_ptr<GenerateStream> GenerateStream::Create(grpc::CallbackServerContext& context, CallRecord record,
                                                       HeldBytes held, Engine& engine, GeneratorMetrics& metrics,
                                                       std::chrono::milliseconds stall_ms_max) {
  std::shared_ptr<GenerateStream> stream(
      new GenerateStream(context, std::move(record), std::move(held), engine, metrics, stall_ms_max));
  stream->self_ = stream;
  HandOver(stream.get());
  return stream;
}

void GenerateStream::Start(absl::StatusOr<GenerationRequest> request) {
  if (!request.ok()) return End(request.status());
  seed_ = request->sampling.seed;
  offset_ = request->retrieval.offset;
  arrival_ = request->arrival;
  const absl::StatusOr<uint64_t> session = engine_.Submit(*std::move(request), self_);
  if (!session.ok()) return End(session.status());
  bool cancelled = false;
  {
    MutexLock lock(mutex_);
    session_ = *session;
    cancelled = cancelled_;
  }
  if (cancelled) engine_.Cancel(*session);
}

void GenerateStream::OnCancel() {
  TakeOver(this);
  std::optional<uint64_t> session;
  {
    MutexLock lock(mutex_);
    cancelled_ = true;
    broken_ = true;
    session = session_;
  }
  if (session.has_value()) engine_.Cancel(*session);
}

void GenerateStream::OnDone() {
  std::unique_ptr<grpc::Alarm> reader_due;
  {
    MutexLock lock(mutex_);
    reader_due = std::move(reader_due_);
    broken_ = true;
    queue_.clear();
    writing_ = {};
  }
  reader_due.reset();
  held_.reset();
  // Last: this may be the end of it.
  const std::shared_ptr<GenerateStream> self = std::move(self_);
}

// Waits and first tokens count when they are there: under overload most generations are cut, and it is their waits that
// tell of it.
void GenerateStream::OnWaited(Clock::duration time) { metrics_.OnWaited(time); }

void GenerateStream::OnToken(TokenOutput output) {
  if (!output.prompt) {
    const Clock::time_point now = Clock::now();
    if (last_token_.has_value()) {
      metrics_.OnBetweenTokens(std::chrono::duration<double>(now - *last_token_).count());
    } else {
      metrics_.OnFirstToken(now - arrival_);
    }
    last_token_ = now;
  }
  pb::GenerateResponse event;
  *event.mutable_token() = TokenMessage(output);
  Push(event);
}

void GenerateStream::OnChunk(ChunkOutput output) {
  metrics_.OnChunk(output);
  pb::GenerateResponse event;
  *event.mutable_retrieval() = RetrievalMessage(output);
  Push(event, HeldBy(output));
}

void GenerateStream::OnFinish(FinishOutput output) {
  metrics_.OnFinish(output);
  pb::GenerateResponse event;
  *event.mutable_finish() = FinishMessage(output, seed_, offset_);
  Push(event);
  End(absl::OkStatus());
}

void GenerateStream::OnError(absl::Status status) {
  // The reader has left or stopped reading: a write under way would not end, and the call and its queue stay with it.
  if (absl::IsCancelled(status)) context_.TryCancel();
  End(status);
}

bool GenerateStream::HasRoom() const {
  MutexLock lock(mutex_);
  return queue_.size() < kEventsQueuedMax;
}

void GenerateStream::Push(const pb::GenerateResponse& event, std::shared_ptr<const HeldBytes> held) {
  grpc::ByteBuffer bytes;
  SerializeMessage(event, bytes);
  {
    MutexLock lock(mutex_);
    if (broken_) return;
    queue_.push_back({bytes, std::move(held)});
  }
  Pump();
}

void GenerateStream::End(const absl::Status& status) {
  const std::shared_ptr<GenerateStream> self = self_;  // which goes with OnDone
  {
    MutexLock lock(mutex_);
    end_ = status;
  }
  Pump();
  WatchReader(self);
}

// From the end of its generation on nobody else looks after the reader, and a write that it does not read never ends.
void GenerateStream::WatchReader(const std::shared_ptr<GenerateStream>& self) {
  MutexLock lock(mutex_);
  if (finished_) return;
  reader_due_ = std::make_unique<grpc::Alarm>();
  reader_due_->Set(std::chrono::system_clock::now() + stall_ms_max_, [self, writes = writes_](bool due) {
    if (due) self->OnReaderDue(self, writes);
  });
}

void GenerateStream::OnReaderDue(const std::shared_ptr<GenerateStream>& self, int64_t writes_before) {
  bool stalled = false;
  {
    MutexLock lock(mutex_);
    if (finished_) return;
    stalled = writes_ == writes_before;
    cutting_ = stalled;
    if (stalled) end_ = StalledError(stall_ms_max_);
  }
  if (!stalled) return WatchReader(self);
  context_.TryCancel();
  {
    MutexLock lock(mutex_);
    cutting_ = false;
  }
  Pump();
}

// Writes the next event if none is being written, and finishes after the last. gRPC is called without the lock, since
// its reactions may come within the call.
void GenerateStream::Pump() {
  std::optional<absl::Status> end;
  {
    MutexLock lock(mutex_);
    if (write_under_way_ || finished_ || cutting_) return;
    if (broken_) queue_.clear();
    if (!queue_.empty()) {
      writing_ = std::move(queue_.front());
      queue_.pop_front();
      write_under_way_ = true;
    } else if (end_.has_value()) {
      end = end_;
      finished_ = true;
    } else {
      return;
    }
  }
  if (end.has_value()) {
    Finish(record_.Finish(*end));
  } else {
    StartWrite(&writing_.bytes);
  }
}

void GenerateStream::OnWriteDone(bool ok) {
  bool has_room_again = false;
  {
    MutexLock lock(mutex_);
    write_under_way_ = false;
    writing_ = {};
    ++writes_;
    if (!ok) broken_ = true;
    has_room_again = queue_.size() == kEventsQueuedMax || broken_;
  }
  Pump();
  if (has_room_again) engine_.Wake();
}

}  // namespace retro
