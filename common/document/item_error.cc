#include "common/document/item_error.h"

#include <string>

#include "common/base/error.h"
#include "common/base/strings.h"

namespace retro {

pb::ItemError ToItemError(const absl::Status& status) {
  pb::ItemError error;
  error.set_code(static_cast<int>(status.code()));
  error.set_message(std::string(MessageOf(status)));
  error.set_reason(std::string(ReasonName(ReasonOf(status).value_or(Reason::kInternal))));
  error.set_field(FieldOf(status).value_or(""));
  return error;
}

absl::Status FromItemError(const pb::ItemError& error) {
  absl::Status status = Error(static_cast<absl::StatusCode>(error.code()),
                              ReasonFromName(error.reason()).value_or(Reason::kInternal), error.message());
  if (!error.field().empty()) SetField(status, error.field());
  return status;
}

}  // namespace retro
