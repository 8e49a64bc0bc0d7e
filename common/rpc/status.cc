#include "common/rpc/status.h"

#include <google/protobuf/duration.pb.h>

#include <string>

#include "common/base/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace retro {
namespace {

constexpr char kErrorDomain[] = "retro";

// A status without a reason came from code that had none to give; the nearest one keeps the list closed.
Reason DefaultReason(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
      return Reason::kCallerGone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return Reason::kInvalidField;
    case absl::StatusCode::kNotFound:
      return Reason::kNotFound;
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

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message(status.message());
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);

  google::rpc::ErrorInfo info;
  info.set_domain(kErrorDomain);
  info.set_reason(std::string(ReasonName(ReasonOf(status).value_or(DefaultReason(status.code())))));
  details.add_details()->PackFrom(info);

  if (const auto field = FieldOf(status); field.has_value()) {
    google::rpc::BadRequest bad;
    auto* violation = bad.add_field_violations();
    violation->set_field(*field);
    violation->set_description(message);
    details.add_details()->PackFrom(bad);
  }
  if (const auto delay = RetryAfterOf(status); delay.has_value()) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(delay->count() / 1000);
    retry.mutable_retry_delay()->set_nanos(static_cast<int>(delay->count() % 1000) * 1'000'000);
    details.add_details()->PackFrom(retry);
  }
  return {static_cast<grpc::StatusCode>(status.code()), message, details.SerializeAsString()};
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return result;
  for (const auto& any : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&info) && info.domain() == kErrorDomain) {
      if (const auto reason = ReasonFromName(info.reason())) SetReason(result, *reason);
    } else if (any.UnpackTo(&bad) && bad.field_violations_size() > 0) {
      SetField(result, bad.field_violations(0).field());
    } else if (any.UnpackTo(&retry)) {
      SetRetryAfter(result, std::chrono::milliseconds(retry.retry_delay().seconds() * 1000 +
                                                      retry.retry_delay().nanos() / 1'000'000));
    }
  }
  return result;
}

}  // namespace retro
