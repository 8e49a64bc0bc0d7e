#include "common/document/item_error.h"

#include <chrono>
#include <string>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "google/protobuf/util/time_util.h"

namespace retro {

using google::protobuf::util::TimeUtil;

pb::ItemError ToItemError(const absl::Status& given) {
  const absl::Status status = WithReason(given);
  pb::ItemError error;
  error.set_code(static_cast<int>(status.code()));
  error.set_message(std::string(MessageOf(status)));
  error.set_reason(std::string(ReasonName(ReasonOf(status).value_or(Reason::kInternal))));
  error.set_field(FieldOf(status).value_or(""));
  if (const auto delay = RetryAfterOf(status)) {
    *error.mutable_retry_delay() = TimeUtil::MillisecondsToDuration(delay->count());
  }
  return error;
}

absl::Status FromItemError(const pb::ItemError& error) {
  absl::Status status = Error(static_cast<absl::StatusCode>(error.code()),
                              ReasonFromName(error.reason()).value_or(Reason::kInternal), error.message());
  if (!error.field().empty()) SetField(status, error.field());
  if (error.has_retry_delay()) {
    SetRetryAfter(status, std::chrono::milliseconds(TimeUtil::DurationToMilliseconds(error.retry_delay())));
  }
  return status;
}

}  // namespace retro
