#include "retriever_service/shard/replica_call.h"

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/header.h"
#include "common/rpc/status.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

// Kept back from the caller's deadline, so that an answer still finds it.
constexpr std::chrono::milliseconds kDeadlineMargin{20};
constexpr std::chrono::seconds kCallMax{60};  // of a caller without a deadline

// Whether a call that ended so, without a word of the shard's own, may have reached it: gRPC answers
// RESOURCE_EXHAUSTED when it cancels calls for want of memory, and INTERNAL or UNKNOWN where a connection breaks.
bool MayHaveArrived(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return true;
    default:
      return false;
  }
}

}  // namespace

void PrepareCall(const CallContext& call, grpc::ClientContext& context) {
  const Clock::duration given = call.deadline == Clock::time_point::max()
                                    ? Clock::duration(kCallMax)
                                    : call.deadline - Clock::now() - kDeadlineMargin;
  const auto left = std::max(given, Clock::duration::zero());
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::duration_cast<std::chrono::system_clock::duration>(left));
  if (!call.request_id.empty()) context.AddMetadata(kRequestIdHeader, call.request_id);
  if (!call.traceparent.empty()) context.AddMetadata("traceparent", call.traceparent);
}

absl::Status FromShardCall(const grpc::Status& status, Effect effect, const std::string& where) {
  absl::Status error = FromGrpcStatus(status);
  if (error.ok() || ReasonOf(error).has_value()) return error;
  if (effect == Effect::kChange && MayHaveArrived(error.code())) {
    return Error(absl::StatusCode::kUnavailable, Reason::kWriteOutcomeUnknown,
                 StrCat(where, " did not say whether it made the change, repeat it: ", MessageOf(error)));
  }
  // A gRPC server that is about to stop cancels what arrives in that moment.
  if (error.code() == absl::StatusCode::kUnavailable || error.code() == absl::StatusCode::kCancelled) {
    return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
                 StrCat(where, " does not answer: is it running? (", MessageOf(error), ")"));
  }
  const bool too_late = error.code() == absl::StatusCode::kDeadlineExceeded;
  SetReason(error, too_late ? Reason::kCallerGone : Reason::kInternal);
  return error;
}

bool IsWorthAnother(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kResourceExhausted ||
         status.code() == absl::StatusCode::kDataLoss;
}

}  // namespace retro
