// What work done for a caller must know of it: until when the answer is wanted, and whether it still is.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/base/caller.h"
#include "common/base/error.h"

namespace retro {

struct CallContext {
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  std::function<bool()> cancelled;       // empty: never; may be called from any thread while the call lasts
  std::string request_id;                // for logs; travels from hop to hop
  std::string traceparent;               // W3C trace context of this hop, for logs and for the next one
  std::string parent_span;               // of the caller, for logs; empty at the beginning of a trace
  std::shared_ptr<const Caller> caller;  // null: no API keys are in force, or the call came without one
  std::string peer;                      // address, of calls that the audit log is to have
  std::string certificate;               // whose the caller's is under mutual TLS, of the same
  // Takes memory for what the answer is about to grow by; false if there is none. Empty: it may take any. From any
  // thread while the call lasts, which gives all of it back.
  std::function<bool(size_t bytes)> hold;

  // Whose turn and share it is where callers take turns and share; "" where nobody has a key.
  const std::string& key() const {
    static const std::string kNobody;
    return caller == nullptr ? kNobody : caller->key;
  }

  // RESOURCE_EXHAUSTED (QUEUE_FULL) if there is no memory for so much more of an answer.
  absl::Status Hold(size_t bytes) const {
    constexpr std::chrono::milliseconds kRetryAfter{200};
    if (!hold || hold(bytes)) return absl::OkStatus();
    return QueueFullError("the memory for requests and replies", kRetryAfter);
  }

  // OK while somebody waits for the answer.
  absl::Status Check() const {
    if (std::chrono::steady_clock::now() >= deadline) return CallerGoneError(/*deadline_passed=*/true);
    if (cancelled && cancelled()) return CallerGoneError(/*deadline_passed=*/false);
    return absl::OkStatus();
  }
};

}  // namespace retro
