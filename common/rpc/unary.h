// Runs unary RPCs: the gRPC callback hands the call to a worker, which parses, validates, works and answers. What waits
// is bounded, in number and in bytes; what nobody waits for any more is dropped when it is taken out.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/byte_budget.h"
#include "common/base/call_context.h"
#include "common/base/status_macros.h"
#include "common/base/worker_pool.h"
#include "common/rpc/message.h"
#include "common/rpc/metrics.h"

namespace retro {

// Deadline, cancellation and request id ("x-request-id", or a new one) of a call. Valid until its Finish().
CallContext MakeCallContext(const grpc::CallbackServerContext& context);

// A call with something to count its answer by.
class CallRecord {
 public:
  CallRecord(Metrics& metrics, std::string method, std::string request_id);
  // Counts and logs the answer; returns it for the wire. Once.
  grpc::Status Finish(const absl::Status& status) const;

 private:
  Metrics& metrics_;
  std::string method_;
  std::string request_id_;
  std::chrono::steady_clock::time_point start_;
};

struct UnaryBounds {
  size_t bytes_max = size_t{256} << 20;       // of requests and replies in memory at once
  size_t reply_bytes_max = size_t{64} << 20;  // of one reply
};

class UnaryRunner {
 public:
  // Both must outlive this; the pool must be stopped only after the server.
  UnaryRunner(WorkerPool& pool, Metrics& metrics, const UnaryBounds& bounds)
      : pool_(pool), metrics_(metrics), bounds_(bounds), budget_(bounds.bytes_max) {}

  // `request` and `reply` are those that a raw RPC method was given. `work` answers on a worker. INVALID_ARGUMENT for a
  // request that does not parse and for one whose reply would be too large; RESOURCE_EXHAUSTED, at once, when too many
  // requests wait, or too many bytes of requests and of replies that their callers have not taken yet.
  template <typename Request, typename Reply>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, std::string method,
                                const grpc::ByteBuffer* request, grpc::ByteBuffer* reply,
                                std::function<absl::StatusOr<Reply>(Request&, const CallContext&)> work) {
    return Start(
        context, std::move(method), *request, *reply,
        [work = std::move(work)](const grpc::ByteBuffer& bytes, const CallContext& call) -> absl::StatusOr<MessagePtr> {
          Request message;
          if (!ParseMessage(bytes, message)) return UnreadableError();
          RETRO_ASSIGN_OR_RETURN(Reply answer, work(message, call));
          return std::make_unique<Reply>(std::move(answer));
        });
  }

  // Bytes of requests and replies that are in memory.
  size_t bytes() const { return budget_.bytes(); }

 private:
  class Call;
  using MessagePtr = std::unique_ptr<google::protobuf::Message>;
  using Work = std::function<absl::StatusOr<MessagePtr>(const grpc::ByteBuffer&, const CallContext&)>;

  static absl::Status UnreadableError();
  grpc::ServerUnaryReactor* Start(grpc::CallbackServerContext* context, std::string method,
                                  const grpc::ByteBuffer& request, grpc::ByteBuffer& reply, Work work);

  WorkerPool& pool_;
  Metrics& metrics_;
  const UnaryBounds bounds_;
  ByteBudget budget_;
};

}  // namespace retro
