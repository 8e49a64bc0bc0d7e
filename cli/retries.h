// New tries of what a server cannot do just now.
#pragma once

#include <grpcpp/support/status.h>

#include <chrono>

#include "cli/protocol.h"

namespace retro::cli {

struct Retries {
  int max = 6;  // in a row
  std::chrono::milliseconds pause_min{200};
  std::chrono::milliseconds pause_max{5000};

  // Before the next try after so many failures in a row: doubled each time, or what the server asks for where that is
  // longer, within the bounds.
  std::chrono::milliseconds PauseAfter(int failures,
                                       std::chrono::milliseconds asked = std::chrono::milliseconds(0)) const;
};

// A shard is away, a queue is full, a server stops (gRPC then cancels what arrives) or has no memory for messages just
// now. A full disk does not pass: it has a reason, and asks for no pause.
bool IsPassing(const grpc::Status& status);
bool IsPassing(const pb::ItemError& error);

// Zero where the server asks for none.
std::chrono::milliseconds PauseAskedFor(const grpc::Status& status);
std::chrono::milliseconds PauseAskedFor(const pb::ItemError& error);

}  // namespace retro::cli
