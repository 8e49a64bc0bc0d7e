#include "common/rpc/status.h"

#include <google/protobuf/duration.pb.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace retro {
namespace {

constexpr char kErrorDomain[] = "retro";
// A status goes into trailers, of which clients take some KiB: one that is too large is lost whole. What a caller sent
// may be part of a message.
constexpr size_t kMessageBytesMax = 1024;
constexpr size_t kFieldBytesMax = 256;
constexpr int64_t kRetrySecondsMax = 86'400;

// Cut between characters of UTF-8.
std::string Cut(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return std::string(text);
  constexpr std::string_view kMore = "...";
  size_t end = bytes_max - kMore.size();
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)).append(kMore);
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& given) {
  if (given.ok()) return grpc::Status::OK;
  const absl::Status status = WithReason(given);
  const std::string message = Cut(MessageOf(status), kMessageBytesMax);
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);

  google::rpc::ErrorInfo info;
  info.set_domain(kErrorDomain);
  info.set_reason(std::string(ReasonName(ReasonOf(status).value_or(Reason::kInternal))));
  details.add_details()->PackFrom(info);

  if (const auto field = FieldOf(status); field.has_value()) {
    google::rpc::BadRequest bad;
    auto* violation = bad.add_field_violations();
    violation->set_field(Cut(*field, kFieldBytesMax));
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
      const int64_t seconds = std::clamp<int64_t>(retry.retry_delay().seconds(), 0, kRetrySecondsMax);
      const int nanos = std::clamp(retry.retry_delay().nanos(), 0, 999'999'999);
      SetRetryAfter(result, std::chrono::milliseconds(seconds * 1000 + nanos / 1'000'000));
    }
  }
  return result;
}

}  // namespace retro
