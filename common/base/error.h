// Errors with a machine-readable reason: an absl::Status whose payloads name it. Libraries below the RPC edge use this
// without knowing protobuf; common/rpc/status.h turns it into google.rpc.ErrorInfo, BadRequest and RetryInfo, and back.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace retro {

// The closed list of reasons; docs/errors.md says for each what may have happened and whether to retry.
enum class Reason {
  kInvalidField,         // a field of the request is wrong; see its BadRequest
  kNotFound,             // no such document
  kCollectionNotFound,   // no such collection
  kCollectionExists,     // a collection of that name, made otherwise
  kVersionTooOld,        // a newer external version is stored
  kEmbedderMismatch,     // vectors or store of another embedder
  kTokenizerMismatch,    // chunks or store of another tokenizer
  kForeignStore,         // a data folder or consistency token of another store, cluster or shard
  kLayoutUnknown,        // a data folder of a layout version that this program does not know
  kStoreLocked,          // another process has the data folder open
  kStoreDamaged,         // a stored file fails its checksum
  kBehindToken,          // what the consistency token covers has not arrived here in time
  kShardUnavailable,     // a shard did not answer
  kStaleEpoch,           // the caller's view of the cluster is old, or this process's
  kClusterMismatch,      // two cluster files disagree
  kBehindLog,            // a replica is behind its primary's log, or has what that lacks: it needs a copy of the store
  kWriteOutcomeUnknown,  // a write may or may not have happened; safe to repeat
  kReadOnly,             // writes are refused: the disk is full, or an operator said so
  kQueueFull,            // too much work is waiting; retry after the delay in RetryInfo
  kShuttingDown,         // the server is draining, or copies a store; another one will answer
  kUnauthenticated,      // no API key, or one that is not this server's
  kPermissionDenied,     // the API key does not let its holder do this
  kKeyLimit,             // past what the API key may do at once; retry after the delay in RetryInfo
  kCallerGone,           // cancelled, or past its deadline
  kRetrievalFailed,      // neighbours could not be fetched and the request does not go on without
  kContextTooLong,       // prompt and max_tokens exceed the model's context
  kNotSupported,         // an interface that this version does not serve yet
  kModelInvalid,         // a model folder is incomplete or contradicts itself
  kInternal,             // a bug; the message helps whoever reports it
};

// As written on the wire: "INVALID_FIELD", ...
std::string_view ReasonName(Reason reason);
std::optional<Reason> ReasonFromName(std::string_view name);

// A status with a reason. `message` is one line that says what to do.
absl::Status Error(absl::StatusCode code, Reason reason, std::string_view message);

// INVALID_ARGUMENT about one field, named by its path from the request ("queries[3].text"). The message is prefixed
// with the path.
absl::Status FieldError(std::string_view field, std::string_view message);

// RESOURCE_EXHAUSTED: `what` is full, retry after the delay.
absl::Status QueueFullError(std::string_view what, std::chrono::milliseconds retry_after);

// CANCELLED or DEADLINE_EXCEEDED, for work whose caller is gone.
absl::Status CallerGoneError(bool deadline_passed);

// A status as it leaves the process: one without a reason gets the nearest one, and the code and delay that go with it.
absl::Status WithReason(const absl::Status& status);

// What the payloads say; nothing for statuses made without.
std::optional<Reason> ReasonOf(const absl::Status& status);
std::optional<std::string> FieldOf(const absl::Status& status);
std::optional<std::chrono::milliseconds> RetryAfterOf(const absl::Status& status);

// For the RPC edge, which rebuilds statuses from the wire.
void SetReason(absl::Status& status, Reason reason);
void SetField(absl::Status& status, std::string_view field);
void SetRetryAfter(absl::Status& status, std::chrono::milliseconds delay);

}  // namespace retro
