// std::string_view where absl has its own: Debian builds absl for C++14, so that absl::string_view is another type
// there, and absl's functions take no std::string_view. On systems where the two are one these are plain forwarders.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace retro {

inline absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view ToStd(absl::string_view text) { return {text.data(), text.size()}; }

// The message of a status; valid as long as the status.
inline std::string_view MessageOf(const absl::Status& status) { return ToStd(status.message()); }

namespace strings_internal {
inline absl::string_view CatArgument(std::string_view text) { return ToAbsl(text); }
template <typename T>
const T& CatArgument(const T& value) {
  return value;
}
}  // namespace strings_internal

// absl::StrCat that takes std::string_view as well.
template <typename... Arguments>
std::string StrCat(const Arguments&... arguments) {
  return absl::StrCat(strings_internal::CatArgument(arguments)...);
}

}  // namespace retro
