// Ends calls whose callers keep them waiting: who does not take what he is sent, or does not send what he began, would
// hold its memory for as long as he likes. HTTP/2 lets a peer hold up one stream while its connection lives.
#pragma once

#include <grpcpp/server_context.h>

#include <chrono>
#include <list>

#include "common/base/repeating.h"
#include "common/base/sync.h"

namespace retro {

// Any thread.
class PeerWatch {
 private:
  struct Waiting {
    std::chrono::steady_clock::time_point since;
    const grpc::CallbackServerContext* context;
    bool cancelled = false;
  };

 public:
  using Entry = std::list<Waiting>::iterator;

  // Cancels a call that waits for its peer for `most`.
  explicit PeerWatch(std::chrono::milliseconds most);

  // Before gRPC is told to send, end the call or read, and when it has done so; `context` lives until then.
  Entry Begin(const grpc::CallbackServerContext& context) ABSL_LOCKS_EXCLUDED(mutex_);
  void End(Entry waiting) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void CancelOverdue() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::chrono::milliseconds most_;
  Mutex mutex_;
  std::list<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);  // the longest first
  Repeating cancelling_;                                // last: it uses all of the above
};

}  // namespace retro
