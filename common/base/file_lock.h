// A lock that processes on one storage take by a file (flock): held until the object or the process is gone.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace retro {

class FileLock {
 public:
  // Makes the file if it is missing, and waits. INTERNAL or PERMISSION_DENIED, as ErrnoStatus.
  static absl::StatusOr<FileLock> Take(const std::string& path);
  // Nothing if somebody holds it.
  static absl::StatusOr<std::optional<FileLock>> TryTake(const std::string& path);

  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  static absl::StatusOr<FileLock> Open(const std::string& path);
  int descriptor_;
};

}  // namespace retro
