// Runs unary RPCs: the gRPC callback hands the call to a worker, which parses, validates, works and answers; what is
// short may be parsed and answered by the callback itself. What waits is bounded, in number and in bytes; what nobody
// waits for any more is dropped when it is taken out.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/byte_budget.h"
#include "common/base/call_context.h"
#include "common/base/handover.h"
#include "common/base/status_macros.h"
#include "common/base/sync.h"
#include "common/base/worker_pool.h"
#include "common/rpc/access.h"
#include "common/rpc/message.h"
#include "common/rpc/metrics.h"
#include "common/rpc/peer_watch.h"

namespace retro {

// Deadline, cancellation and request id (the caller's if it is one, see header.h, else a new one) of a call. Valid
// until its Finish().
CallContext MakeCallContext(const grpc::CallbackServerContext& context);

// A call with something to count its answer by. While it lives, the call counts as one of its caller's.
class CallRecord {
 public:
  CallRecord(Metrics& metrics, std::string method, const CallContext& call);
  // What an audited call asks for, cut to 1 KiB; what others ask for is not kept.
  void NoteRequest(const google::protobuf::Message& request);
  // Counts and logs the answer, in the audit log too if the method is one for it; returns it for the wire. Once. Of
  // calls that no key admits the audit log has so many a second of each key, and of all without a key, and how many
  // more there were.
  grpc::Status Finish(const absl::Status& status) const;

 private:
  void Audit(const absl::Status& status, const std::string& code) const;

  Metrics& metrics_;
  std::string method_;
  std::string request_id_;
  std::string traceparent_;
  std::string parent_span_;
  std::shared_ptr<const Caller> caller_;
  std::string peer_, certificate_;
  std::string audited_request_;
  std::chrono::steady_clock::time_point start_;
};

// Whether a request is answered soon, and waits for nothing and nobody. Null: none is.
template <typename Request>
using IsShort = bool (*)(const Request& request);

struct UnaryOptions {
  size_t bytes_max = size_t{256} << 20;              // of requests and replies in memory at once
  size_t reply_bytes_max = size_t{64} << 20;         // of one reply
  std::chrono::milliseconds peer_wait_max{120'000};  // for a caller to take a reply; then the call is cancelled
  std::shared_ptr<AccessControl> access;             // null: everybody may call everything
};

class UnaryRunner {
 public:
  // Both must outlive this; the pool must be stopped only after the server.
  UnaryRunner(WorkerPool& pool, Metrics& metrics, const UnaryOptions& options)
      : pool_(pool),
        metrics_(metrics),
        options_(options),
        budget_(std::make_shared<ByteBudget>(options.bytes_max)),
        peers_(std::make_shared<PeerWatch>(options.peer_wait_max)),
        wait_(metrics.Histogram("retro_request_wait_seconds", "A unary request's wait for a worker.")) {}
  // As `other`, with which it shares the memory for requests and replies, but with workers of its own.
  UnaryRunner(WorkerPool& pool, const UnaryRunner& other)
      : pool_(pool),
        metrics_(other.metrics_),
        options_(other.options_),
        own_budget_(false),
        budget_(other.budget_),
        peers_(other.peers_),
        wait_(other.wait_) {}
  UnaryRunner(const UnaryRunner&) = delete;
  UnaryRunner& operator=(const UnaryRunner&) = delete;
  ~UnaryRunner() { TakeOver(this); }  // after all calls: gRPC's server has ended

  // `request` and `reply` are those that a raw RPC method was given. `work` answers on a worker. INVALID_ARGUMENT for a
  // request that does not parse and for one whose reply would be too large; errors of AccessControl; PERMISSION_DENIED
  // for a collection that is not the caller's; RESOURCE_EXHAUSTED, at once, when too many requests wait, or so many
  // that the caller's deadline would not be met, or too many bytes of requests and of replies that their callers have
  // not taken yet. A request of few bytes that `is_short` is worked on, if a worker is free, by the thread of gRPC that
  // brought it, which saves waking two others.
  template <typename Request, typename Reply>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, std::string method,
                                const grpc::ByteBuffer* request, grpc::ByteBuffer* reply,
                                std::function<absl::StatusOr<Reply>(Request&, const CallContext&)> work,
                                IsShort<Request> is_short = nullptr) {
    const auto message = std::make_shared<Request>();
    Steps steps;
    steps.parse = [message](const grpc::ByteBuffer& bytes, const CallContext& call, CallRecord& record) {
      RETRO_RETURN_IF_ERROR(ParseRequest(bytes, *message, [&call](size_t taken) { return call.Hold(taken); }));
      record.NoteRequest(*message);
      return CheckCollectionField(*message, call);
    };
    if (is_short != nullptr) steps.is_short = [message, is_short] { return is_short(*message); };
    steps.forget = [message] { *message = Request(); };
    steps.work = [message, work = std::move(work)](const CallContext& call) -> absl::StatusOr<MessagePtr> {
      Request own = std::move(*message);  // gone before the reply is sent
      RETRO_ASSIGN_OR_RETURN(Reply answer, work(own, call));
      return std::make_unique<Reply>(std::move(answer));
    };
    return Start(context, std::move(method), *request, *reply, std::move(steps));
  }

  // Answers a request that finds no room in a budget of bytes.
  static absl::Status MemoryFullError();
  static constexpr std::chrono::milliseconds kRetryAfter{200};

  // Shows among the metrics how many requests wait for the workers and the bytes that are held (not of a memory that is
  // another's), as those of `queue`. Before a MetricsServer is started; this must outlive that.
  void Watch(const std::string& queue) const;

  AccessControl* access() const { return options_.access.get(); }

  // Bytes of requests and replies that are in memory.
  size_t bytes() const { return budget_->bytes(); }
  // For requests that come by another way.
  ByteBudget& budget() const { return *budget_; }
  // For streams.
  PeerWatch& peers() const { return *peers_; }

 private:
  class Call;
  using Clock = std::chrono::steady_clock;
  using MessagePtr = std::unique_ptr<google::protobuf::Message>;
  // What is done with one request, in this order; they share its message.
  struct Steps {
    std::function<absl::Status(const grpc::ByteBuffer&, const CallContext&, CallRecord&)> parse;
    std::function<bool()> is_short;  // null: it is not
    std::function<void()> forget;    // to be parsed again
    std::function<absl::StatusOr<MessagePtr>(const CallContext&)> work;
  };
  struct Wait {
    Clock::duration time;
    size_t ahead;  // calls of its key, when it came
    Clock::time_point ended;
  };

  // What a call of this key would wait for a worker: as long as the last one of its own did, for keys take turns, and
  // less where fewer of them are ahead of it. None if none are, or that one was taken out long ago: then it is past.
  Clock::duration ExpectedWait(const std::string& key) const ABSL_LOCKS_EXCLUDED(waits_mutex_);
  void NoteWait(const std::string& key, Clock::duration time, size_t ahead) ABSL_LOCKS_EXCLUDED(waits_mutex_);
  grpc::ServerUnaryReactor* Start(grpc::CallbackServerContext* context, std::string method,
                                  const grpc::ByteBuffer& request, grpc::ByteBuffer& reply, Steps steps);
  bool RunHere(const std::function<void()>& work, const std::string& key);

  WorkerPool& pool_;
  Metrics& metrics_;
  const UnaryOptions options_;
  const bool own_budget_ = true;
  const std::shared_ptr<ByteBudget> budget_;
  const std::shared_ptr<PeerWatch> peers_;
  prometheus::Histogram& wait_;
  mutable Mutex waits_mutex_;
  // Of the call that was taken out last; by key, of which there are as many as the keys' file has.
  std::map<std::string, Wait> last_waits_ ABSL_GUARDED_BY(waits_mutex_);
};

}  // namespace retro
