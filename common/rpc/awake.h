// gRPC 1.51 takes in what arrives on a few threads, each of which sleeps for 100 ms when nothing has come for a second:
// without traffic all of them at once, and whoever calls then waits for them to wake. So something comes.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <optional>

#include "common/base/repeating.h"
#include "common/base/sync.h"

namespace retro {

// While it lives, one of these threads is awake. One a process is enough.
class Awake {
 public:
  Awake();
  ~Awake();

 private:
  // A call on a channel to nowhere, which fails at once, by way of those threads.
  void Call() ABSL_LOCKS_EXCLUDED(mutex_);

  grpc::GenericStub stub_;
  grpc::ByteBuffer nothing_, reply_;
  std::optional<grpc::ClientContext> context_;  // of the call that was made last
  Mutex mutex_;
  CondVar ended_;
  bool calling_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Repeating> repeating_;  // last: it uses all of the above
};

}  // namespace retro
