// Messages as JSON: protobuf's own mapping (64-bit numbers and bytes as strings), field names as in the .proto files.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace retro::cli {

// One line without its line break.
std::string MessageToJson(const google::protobuf::Message& message);
// INVALID_ARGUMENT if `json` is none, or has a field that the message lacks.
absl::Status MessageFromJson(std::string_view json, google::protobuf::Message* message);

}  // namespace retro::cli
