// Runs unary RPCs: the gRPC callback hands the call to a worker, which validates, works and answers. What waits is
// bounded; what nobody waits for any more is dropped when it is taken out.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "common/base/call_context.h"
#include "common/base/worker_pool.h"
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

class UnaryRunner {
 public:
  // Both must outlive this; the pool must be stopped only after the server.
  UnaryRunner(WorkerPool& pool, Metrics& metrics) : pool_(pool), metrics_(metrics) {}

  // `work` gets the CallContext and fills the response that the RPC method was given.
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, std::string method,
                                std::function<absl::Status(const CallContext&)> work);

  Metrics& metrics() { return metrics_; }

 private:
  WorkerPool& pool_;
  Metrics& metrics_;
};

}  // namespace retro
