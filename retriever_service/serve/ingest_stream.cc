#include "retriever_service/serve/ingest_stream.h"

#include <grpcpp/server_context.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "common/base/error.h"
#include "common/base/handover.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/base/sync.h"
#include "common/rpc/message.h"
#include "common/rpc/unary.h"
#include "retriever_service/ingest/ordered_writer.h"
#include "retriever_service/query/consistency_token.h"

namespace retro {
namespace {

// Reads while the window has room; acknowledges in order; ends when the client has no more to send and all is
// acknowledged, or when it is gone, or the server drains, and nothing that was taken is under way any more. Owns itself
// until gRPC is done with it.
class IngestStream : public IngestReactor, public OpenStream {
 public:
  static IngestStream* Start(const RetrieverParts& parts, grpc::CallbackServerContext* context) {
    const auto stream = std::make_shared<IngestStream>(parts, context);
    stream->self_ = stream;
    HandOver(stream.get());
    if (!stream->admitted_.ok()) {
      stream->Finish(stream->record_.Finish(stream->admitted_));
      return stream.get();
    }
    stream->StartRead(&stream->request_);
    parts.open_streams.Add(stream);
    return stream.get();
  }

  IngestStream(const RetrieverParts& parts, grpc::CallbackServerContext* context)
      : parts_(parts),
        context_(*context),
        call_(MakeCallContext(*context)),
        admitted_(Admit(parts.write_runner.access(), *context, "Ingest", call_)),
        record_(parts.metrics, "Ingest", call_),
        writer_(OrderedWriter::Create(parts.writer, parts.ingest_workers)) {
    call_.cancelled = [this] { return gone_.load(std::memory_order_relaxed); };
    token_.set_store_id(parts.shards.store_id());
  }

  void OnReadDone(bool ok) override {
    TakeOver(this);
    if (!ok) {
      EndReading();
      return;
    }
    // Its key may have been taken away since it began.
    if (const absl::Status further = AdmitFurther(parts_.write_runner.access(), "Ingest", call_); !further.ok()) {
      return TakeNoMore(further);
    }
    const size_t bytes = request_.Length();
    const auto message = std::make_shared<Message>(parts_.write_runner.budget(), call_.key());
    message->bytes.Swap(&request_);
    // While it waits for its turn; it is in memory already.
    if (!message->held.TryAdd(bytes)) return TakeNoMore(UnaryRunner::MemoryFullError());
    {
      MutexLock lock(mutex_);
      if (!end_.ok()) return;  // not taken, and not acknowledged
      ++under_way_;
      ++holding_;
    }
    parts_.ingest_budget.Acquire(bytes, call_.key(), [this, message, bytes] { Accept(message->bytes, bytes); });
  }

  void OnWriteDone(bool ok) override {
    TakeOver(this);
    parts_.write_runner.peers().End(written_);
    if (!ok) gone_ = true;
    Advance([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      acknowledgements_.pop_front();
      --under_way_;
      writing_ = false;
    });
  }

  void OnCancel() override {
    TakeOver(this);
    gone_ = true;
  }
  void OnDone() override {
    TakeOver(this);
    self_.reset();  // may delete this
  }

  void Drain() override {
    TakeNoMore(Error(absl::StatusCode::kUnavailable, Reason::kShuttingDown,
                     "the server is shutting down: what is acknowledged is kept, send the rest again later or "
                     "elsewhere"));
  }

 private:
  struct Message {
    Message(ByteBudget& budget, std::string key) : held(budget, std::move(key)) {}
    grpc::ByteBuffer bytes;
    HeldBytes held;
  };

  // The stream ends with `status` once what was taken is acknowledged.
  void TakeNoMore(const absl::Status& status) {
    Advance([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (end_.ok()) end_ = status;
      read_all_ = true;
    });
  }

  void Accept(grpc::ByteBuffer& message, size_t bytes) {
    pb::IngestRequest request;
    const auto parsed = std::make_shared<HeldBytes>(parts_.write_runner.budget(), call_.key());
    const absl::Status allowed = Read(message, request, *parsed);
    message.Clear();
    const auto done = [this, sequence = request.sequence(), bytes, parsed](const WriteResult& result) {
      parts_.ingest_budget.Release(bytes);
      Acknowledge(sequence, result);
    };
    if (!allowed.ok()) {
      writer_->Refuse(allowed, done);
    } else {
      writer_->Submit(std::move(*request.mutable_collection()), std::move(*request.mutable_write()), "write", call_,
                      done);
    }
    Advance([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      reading_ = false;
      --holding_;
    });
  }

  // Parses a message, which takes what `parsed` then holds. The error is the document's.
  absl::Status Read(const grpc::ByteBuffer& message, pb::IngestRequest& request, HeldBytes& parsed) const {
    const absl::Status read = ParseRequest(message, request, [&parsed](size_t bytes) {
      return parsed.TryAdd(bytes) ? absl::OkStatus() : UnaryRunner::MemoryFullError();
    });
    if (absl::IsInvalidArgument(read)) return FieldError("write", MessageOf(read));
    RETRO_RETURN_IF_ERROR(read);
    RETRO_RETURN_IF_ERROR(CheckCollectionLength("collection", request.collection()));
    return CheckCollection(call_.caller.get(), request.collection());
  }

  // In the order of the documents, never two at a time.
  void Acknowledge(uint64_t sequence, const WriteResult& result) {
    if (result.status.ok()) Cover(token_, result.shard, result.position);
    parts_.retriever_metrics.OnDocument(result.document);
    pb::IngestResponse response;
    response.set_sequence(sequence);
    *response.mutable_result() = result.document;
    response.set_consistency_token(EncodeConsistencyToken(token_));
    grpc::ByteBuffer message;
    SerializeMessage(response, message);
    Advance([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { acknowledgements_.push_back(std::move(message)); });
  }

  void EndReading() {
    Advance([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      reading_ = false;
      read_all_ = true;
    });
  }

  // Makes a change of state and starts whatever may go on now: the next write, the next read, the end. All under one
  // lock: once another thread has seen the change it may take the stream to its end, so a thread that has nothing to
  // start itself must not touch it any more.
  void Advance(const std::function<void()>& change) {
    const grpc::ByteBuffer* write = nullptr;
    bool read = false, finish = false;
    absl::Status end;
    {
      MutexLock lock(mutex_);
      change();
      end = end_;
      if (!writing_ && !acknowledgements_.empty()) {
        writing_ = true;
        write = &acknowledgements_.front();
      }
      if (!reading_ && !read_all_ && under_way_ < kIngestWindow) {
        reading_ = read = true;
        ++holding_;
      }
      if (read_all_ && under_way_ == 0 && holding_ == 0 && !finished_) finished_ = finish = true;
    }
    if (write != nullptr) {
      written_ = parts_.write_runner.peers().Begin(context_);
      HandOver(this);
      StartWrite(write);
    }
    if (read) {
      HandOver(this);
      StartRead(&request_);
      Advance([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { --holding_; });
    }
    if (finish) {
      const grpc::Status answer = record_.Finish(gone_ ? CallerGoneError(false) : end);
      HandOver(this);
      Finish(answer);
    }
  }

  const RetrieverParts parts_;
  const grpc::CallbackServerContext& context_;
  CallContext call_;
  const absl::Status admitted_;
  CallRecord record_;
  std::shared_ptr<OrderedWriter> writer_;
  std::shared_ptr<IngestStream> self_;
  std::atomic<bool> gone_{false};
  grpc::ByteBuffer request_;         // of the one read that may be under way
  shardpb::ConsistencyToken token_;  // touched by Acknowledge alone
  PeerWatch::Entry written_;         // the acknowledgement that is being written

  Mutex mutex_;
  std::deque<grpc::ByteBuffer> acknowledgements_ ABSL_GUARDED_BY(mutex_);  // the front one is being written
  int under_way_ ABSL_GUARDED_BY(mutex_) = 0;                              // read and not acknowledged
  int holding_ ABSL_GUARDED_BY(mutex_) = 0;  // threads that still touch this, whoever drains it meanwhile
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool read_all_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);  // not OK once no more is taken
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

IngestReactor* StartIngestStream(const RetrieverParts& parts, grpc::CallbackServerContext* context) {
  return IngestStream::Start(parts, context);
}

}  // namespace retro
