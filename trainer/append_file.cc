#include "trainer/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/base/file.h"
#include "common/base/strings.h"

namespace retro {

absl::StatusOr<AppendFile> AppendFile::Open(const std::string& path, uint64_t size) {
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) return ErrnoStatus(errno, "cannot open", path);
  AppendFile file(path, descriptor, size);
  struct stat facts = {};
  if (fstat(descriptor, &facts) != 0) return ErrnoStatus(errno, "cannot examine", path);
  if (static_cast<uint64_t>(facts.st_size) < size) {
    return absl::DataLossError(StrCat(path, " has ", facts.st_size, " bytes where ", size,
                                      " were written: remove the folder and start again"));
  }
  if (ftruncate(descriptor, static_cast<off_t>(size)) != 0) return ErrnoStatus(errno, "cannot cut", path);
  return file;
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  return *this;
}

AppendFile::~AppendFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::Status AppendFile::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "cannot write", path_);
    bytes.remove_prefix(static_cast<size_t>(written));
    size_ += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::Status AppendFile::Sync() {
  if (fdatasync(descriptor_) != 0) return ErrnoStatus(errno, "cannot sync", path_);
  return absl::OkStatus();
}

}  // namespace retro
