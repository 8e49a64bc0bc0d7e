// A small file that is replaced while the program runs, as keys and secrets are.
#pragma once

#include <sys/stat.h>

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace retro {

// One thread at a time.
class WatchedFile {
 public:
  explicit WatchedFile(std::string path) : path_(std::move(path)) {}

  // The content if the file is another one than at the last call that gave it, nothing if it is the same; looks at most
  // once in `every`. Errors of ReadFile: the file is then looked at again the next time.
  absl::StatusOr<std::optional<std::string>> News(std::chrono::milliseconds every = std::chrono::milliseconds(1000));

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::optional<struct stat> seen_;
  std::chrono::steady_clock::time_point look_again_;
};

}  // namespace retro
