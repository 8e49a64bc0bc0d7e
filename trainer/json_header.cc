#include "trainer/json_header.h"

#include "common/base/status_macros.h"

namespace retro {

absl::Status WriteHeader(const std::string& path, const HeaderJson& json) {
  return WriteFileAtomically(path, json.dump(2) + "\n");
}

absl::StatusOr<HeaderJson> ReadHeader(const std::string& path, const std::string& format, int64_t version) {
  RETRO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  HeaderJson json = HeaderJson::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("format", HeaderJson()) != format) {
    return absl::InvalidArgumentError(StrCat(path, ": is no header of the format ", format));
  }
  if (json.value("format_version", HeaderJson()) != version) {
    return absl::FailedPreconditionError(
        StrCat(path, ": is of another version than ", version, ", which this program reads: prepare it again"));
  }
  return json;
}

}  // namespace retro
