#include "cli/message_json.h"

#include "common/base/strings.h"
#include "google/protobuf/util/json_util.h"

namespace retro::cli {

std::string MessageToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : "{}";  // fails on malformed Any and times only; we have no Any
}

absl::Status MessageFromJson(std::string_view json, google::protobuf::Message* message) {
  const auto status =
      google::protobuf::util::JsonStringToMessage(google::protobuf::StringPiece(json.data(), json.size()), message);
  if (status.ok()) return absl::OkStatus();
  const auto text = status.message();
  return absl::InvalidArgumentError(
      StrCat("no ", message->GetDescriptor()->name(), " in JSON: ", std::string_view(text.data(), text.size())));
}

}  // namespace retro::cli
