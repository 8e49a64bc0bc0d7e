// Calls to the services: channels, contexts, and what is said when a call fails.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <memory>
#include <string>

#include "cli/common_options.h"
#include "cli/console.h"
#include "cli/interrupt.h"
#include "cli/protocol.h"

namespace retro::cli {

// A service that is called, as errors name it.
struct Peer {
  std::string name;     // "retriever" or "generator"
  std::string address;  // HOST:PORT, or a gRPC name
  std::shared_ptr<grpc::Channel> channel;
};
Peer RetrieverPeer(const CommonOptions& options);
Peer GeneratorPeer(const CommonOptions& options);

std::unique_ptr<pb::RetrieverService::Stub> ConnectRetriever(const CommonOptions& options);
std::unique_ptr<gen::GeneratorService::Stub> ConnectGenerator(const CommonOptions& options);

// The context of one call, which Ctrl-C cancels.
class Call {
 public:
  // Ends after `timeout_s`; 0 is never.
  explicit Call(double timeout_s) : cancel_(context_) {
    if (timeout_s > 0) {
      context_.set_deadline(std::chrono::system_clock::now() +
                            std::chrono::microseconds(static_cast<int64_t>(timeout_s * 1e6)));
    }
  }
  grpc::ClientContext* context() { return &context_; }

 private:
  grpc::ClientContext context_;
  CancelOnInterrupt cancel_;
};

// True if the call never reached a service of ours: nothing listens, or it is no service of ours that does.
bool IsUnreachable(const grpc::Status& status);

// One line that says what went wrong and what to do, with the server's reason and field.
std::string DescribeFailure(const Peer& peer, const grpc::Status& status);

// Prints that line and returns the exit code for it.
int ReportFailure(const Console& console, const Peer& peer, const grpc::Status& status);

}  // namespace retro::cli
