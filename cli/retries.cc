#include "cli/retries.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/rpc/status.h"
#include "google/protobuf/util/time_util.h"

namespace retro::cli {
namespace {

bool IsPassing(grpc::StatusCode code, bool asks_for_a_pause) {
  return code == grpc::StatusCode::UNAVAILABLE || (code == grpc::StatusCode::RESOURCE_EXHAUSTED && asks_for_a_pause);
}

}  // namespace

std::chrono::milliseconds Retries::PauseAfter(int failures, std::chrono::milliseconds asked) const {
  const auto doubled = std::min(pause_max, pause_min * (1 << std::min(failures - 1, 16)));
  return std::clamp(asked, doubled, pause_max);
}

bool IsPassing(const grpc::Status& status) {
  return IsPassing(status.error_code(), RetryAfterOf(FromGrpcStatus(status)).has_value());
}

bool IsPassing(const pb::ItemError& error) {
  return IsPassing(static_cast<grpc::StatusCode>(error.code()), error.has_retry_delay());
}

std::chrono::milliseconds PauseAskedFor(const grpc::Status& status) {
  return RetryAfterOf(FromGrpcStatus(status)).value_or(std::chrono::milliseconds(0));
}

std::chrono::milliseconds PauseAskedFor(const pb::ItemError& error) {
  return std::chrono::milliseconds(google::protobuf::util::TimeUtil::DurationToMilliseconds(error.retry_delay()));
}

}  // namespace retro::cli
