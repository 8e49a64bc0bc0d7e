#include "common/base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace retro {

absl::StatusOr<FileLock> FileLock::Open(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return ErrnoStatus(errno, "cannot open", path);
  return FileLock(descriptor);
}

absl::StatusOr<FileLock> FileLock::Take(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(FileLock lock, Open(path));
  while (flock(lock.descriptor_, LOCK_EX) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "cannot lock", path);
  }
  return lock;
}

absl::StatusOr<std::optional<FileLock>> FileLock::TryTake(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(FileLock lock, Open(path));
  while (flock(lock.descriptor_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return std::nullopt;
    if (errno != EINTR) return ErrnoStatus(errno, "cannot lock", path);
  }
  return std::optional<FileLock>(std::move(lock));
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock::~FileLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

}  // namespace retro
