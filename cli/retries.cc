#include "cli/retries.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/rpc/status.h"
#include "google/protobuf/util/time_util.h"

namespace retro::cli {

std::chrono::milliseconds Retries::PauseAfter(int failures, std::chrono::milliseconds asked) const {
  const auto doubled = std::min(pause_max, pause_min * (1 << std::min(failures - 1, 16)));
  return std::clamp(asked, doubled, pause_max);
}

bool IsPassing(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::CANCELLED:
      return true;
    case grpc::StatusCode::RESOURCE_EXHAUSTED: {
      const absl::Status known = FromGrpcStatus(status);
      return RetryAfterOf(known).has_value() || !ReasonOf(known).has_value();
    }
    default:
      return false;
  }
}

bool IsPassing(const pb::ItemError& error) {
  switch (error.code()) {
    case grpc::StatusCode::UNAVAILABLE:
      return true;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return error.has_retry_delay();
    default:
      return false;
  }
}

std::chrono::milliseconds PauseAskedFor(const grpc::Status& status) {
  return RetryAfterOf(FromGrpcStatus(status)).value_or(std::chrono::milliseconds(0));
}

std::chrono::milliseconds PauseAskedFor(const pb::ItemError& error) {
  return std::chrono::milliseconds(google::protobuf::util::TimeUtil::DurationToMilliseconds(error.retry_delay()));
}

}  // namespace retro::cli
