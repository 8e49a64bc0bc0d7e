// Ctrl-C: running calls are cancelled, so that commands can still say what was done. A second Ctrl-C ends the process.
#pragma once

#include <grpcpp/client_context.h>

#include <chrono>

namespace retro::cli {

// From now on SIGINT and SIGTERM call Interrupt(). Once per process.
void HandleInterruptSignals();

// Cancels every call that a CancelOnInterrupt watches, and those that begin later. Any thread.
void Interrupt();
bool Interrupted();
// Back to the start, for tests that run several commands in one process.
void ResetInterrupt();

// Sleeps; returns at once, with true, when interrupted.
bool SleepUnlessInterrupted(std::chrono::milliseconds duration);

// Cancels `context` when the process is interrupted, as long as this object lives.
class CancelOnInterrupt {
 public:
  explicit CancelOnInterrupt(grpc::ClientContext& context);
  ~CancelOnInterrupt();
  CancelOnInterrupt(const CancelOnInterrupt&) = delete;
  CancelOnInterrupt& operator=(const CancelOnInterrupt&) = delete;

 private:
  grpc::ClientContext& context_;
};

}  // namespace retro::cli
