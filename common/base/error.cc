#include "common/base/error.h"

#include <array>
#include <charconv>
#include <utility>

#include "absl/strings/cord.h"

namespace retro {
namespace {

constexpr char kReasonUrl[] = "retro/reason";
constexpr char kFieldUrl[] = "retro/field";
constexpr char kRetryUrl[] = "retro/retry_after_ms";

constexpr std::array<std::pair<Reason, std::string_view>, 29> kReasons = {{
    {Reason::kInvalidField, "INVALID_FIELD"},
    {Reason::kNotFound, "NOT_FOUND"},
    {Reason::kCollectionNotFound, "COLLECTION_NOT_FOUND"},
    {Reason::kCollectionExists, "COLLECTION_EXISTS"},
    {Reason::kVersionTooOld, "VERSION_TOO_OLD"},
    {Reason::kEmbedderMismatch, "EMBEDDER_MISMATCH"},
    {Reason::kTokenizerMismatch, "TOKENIZER_MISMATCH"},
    {Reason::kForeignStore, "FOREIGN_STORE"},
    {Reason::kLayoutUnknown, "LAYOUT_UNKNOWN"},
    {Reason::kStoreLocked, "STORE_LOCKED"},
    {Reason::kStoreDamaged, "STORE_DAMAGED"},
    {Reason::kBehindToken, "BEHIND_TOKEN"},
    {Reason::kShardUnavailable, "SHARD_UNAVAILABLE"},
    {Reason::kStaleEpoch, "STALE_EPOCH"},
    {Reason::kClusterMismatch, "CLUSTER_MISMATCH"},
    {Reason::kBehindLog, "BEHIND_LOG"},
    {Reason::kWriteOutcomeUnknown, "WRITE_OUTCOME_UNKNOWN"},
    {Reason::kReadOnly, "READ_ONLY"},
    {Reason::kQueueFull, "QUEUE_FULL"},
    {Reason::kShuttingDown, "SHUTTING_DOWN"},
    {Reason::kUnauthenticated, "UNAUTHENTICATED"},
    {Reason::kPermissionDenied, "PERMISSION_DENIED"},
    {Reason::kKeyLimit, "KEY_LIMIT"},
    {Reason::kCallerGone, "CALLER_GONE"},
    {Reason::kRetrievalFailed, "RETRIEVAL_FAILED"},
    {Reason::kContextTooLong, "CONTEXT_TOO_LONG"},
    {Reason::kNotSupported, "NOT_SUPPORTED"},
    {Reason::kModelInvalid, "MODEL_INVALID"},
    {Reason::kInternal, "INTERNAL"},
}};

// A status without a reason came from code that had none to give; the nearest one keeps the list closed. Whether a file
// is there or may be read is nothing that a caller asked: what libraries say of that is no NOT_FOUND of ours.
Reason DefaultReason(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
      return Reason::kCallerGone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return Reason::kInvalidField;
    case absl::StatusCode::kResourceExhausted:
      return Reason::kQueueFull;
    case absl::StatusCode::kUnimplemented:
      return Reason::kNotSupported;
    case absl::StatusCode::kUnavailable:
      return Reason::kShardUnavailable;
    case absl::StatusCode::kDataLoss:
      return Reason::kStoreDamaged;
    default:
      return Reason::kInternal;
  }
}

std::optional<std::string> Payload(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  if (!payload.has_value()) return std::nullopt;
  return std::string(*payload);
}

}  // namespace

std::string_view ReasonName(Reason reason) {
  for (const auto& [value, name] : kReasons) {
    if (value == reason) return name;
  }
  return "INTERNAL";
}

std::optional<Reason> ReasonFromName(std::string_view name) {
  for (const auto& [value, reason_name] : kReasons) {
    if (reason_name == name) return value;
  }
  return std::nullopt;
}

absl::Status Error(absl::StatusCode code, Reason reason, std::string_view message) {
  absl::Status status(code, absl::string_view(message.data(), message.size()));
  SetReason(status, reason);
  return status;
}

absl::Status FieldError(std::string_view field, std::string_view message) {
  absl::Status status = Error(absl::StatusCode::kInvalidArgument, Reason::kInvalidField,
                              std::string(field) + ": " + std::string(message));
  SetField(status, field);
  return status;
}

absl::Status QueueFullError(std::string_view what, std::chrono::milliseconds retry_after) {
  absl::Status status =
      Error(absl::StatusCode::kResourceExhausted, Reason::kQueueFull,
            std::string(what) + " is full, try again in " + std::to_string(retry_after.count()) + " ms");
  SetRetryAfter(status, retry_after);
  return status;
}

absl::Status CallerGoneError(bool deadline_passed) {
  return deadline_passed
             ? Error(absl::StatusCode::kDeadlineExceeded, Reason::kCallerGone, "the call's deadline has passed")
             : Error(absl::StatusCode::kCancelled, Reason::kCallerGone, "the call was cancelled");
}

absl::Status WithReason(const absl::Status& status) {
  constexpr std::chrono::milliseconds kRetryAfter{1000};  // of a lack of memory, say, which names none
  if (status.ok()) return status;
  const std::optional<Reason> given = ReasonOf(status);
  if (given.has_value() && *given != Reason::kInternal) return status;
  const Reason reason = given.value_or(DefaultReason(status.code()));
  const absl::StatusCode code = reason == Reason::kInternal       ? absl::StatusCode::kInternal
                                : reason == Reason::kInvalidField ? absl::StatusCode::kInvalidArgument
                                                                  : status.code();
  absl::Status named(code, status.message());
  status.ForEachPayload([&named](auto url, const absl::Cord& payload) { named.SetPayload(url, payload); });
  SetReason(named, reason);
  if (reason == Reason::kQueueFull && !RetryAfterOf(named).has_value()) SetRetryAfter(named, kRetryAfter);
  return named;
}

std::optional<Reason> ReasonOf(const absl::Status& status) {
  const std::optional<std::string> name = Payload(status, kReasonUrl);
  return name.has_value() ? ReasonFromName(*name) : std::nullopt;
}

std::optional<std::string> FieldOf(const absl::Status& status) { return Payload(status, kFieldUrl); }

std::optional<std::chrono::milliseconds> RetryAfterOf(const absl::Status& status) {
  const std::optional<std::string> text = Payload(status, kRetryUrl);
  if (!text.has_value()) return std::nullopt;
  int64_t ms = 0;
  std::from_chars(text->data(), text->data() + text->size(), ms);
  return std::chrono::milliseconds(ms);
}

void SetReason(absl::Status& status, Reason reason) {
  status.SetPayload(kReasonUrl, absl::Cord(std::string(ReasonName(reason))));
}

void SetField(absl::Status& status, std::string_view field) {
  status.SetPayload(kFieldUrl, absl::Cord(std::string(field)));
}

void SetRetryAfter(absl::Status& status, std::chrono::milliseconds delay) {
  status.SetPayload(kRetryUrl, absl::Cord(std::to_string(delay.count())));
}

}  // namespace retro
