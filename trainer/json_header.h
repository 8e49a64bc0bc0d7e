// The JSON headers that stand beside the trainer's binary files.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "nlohmann/json.hpp"

namespace retro {

using HeaderJson = nlohmann::ordered_json;

// Replaced atomically.
absl::Status WriteHeader(const std::string& path, const HeaderJson& json);

// NOT_FOUND; INVALID_ARGUMENT for what is no such header; FAILED_PRECONDITION for another version.
absl::StatusOr<HeaderJson> ReadHeader(const std::string& path, const std::string& format, int64_t version);

// Reads members one by one; `status` is the first that was missing or of another type (INVALID_ARGUMENT naming it).
class HeaderFields {
 public:
  HeaderFields(const std::string& path, const HeaderJson& json) : path_(path), json_(json) {}

  template <typename T>
  void Read(const char* key, T& value) {
    const auto found = json_.find(key);
    bool fits = found != json_.end();
    if (fits && std::is_same_v<T, std::string>) fits = found->is_string();
    if (fits && std::is_unsigned_v<T>) fits = found->is_number_unsigned();
    if (fits && std::is_signed_v<T>) fits = found->is_number_integer();
    if (fits) {
      value = found->template get<T>();
    } else if (status_.ok()) {
      status_ = absl::InvalidArgumentError(StrCat(path_, ": '", key, "' is missing or of another type"));
    }
  }

  const absl::Status& status() const { return status_; }

 private:
  const std::string& path_;
  const HeaderJson& json_;
  absl::Status status_;
};

}  // namespace retro
