#include "common/base/watched_file.h"

#include <cerrno>

#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace retro {
namespace {

bool SameFile(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

}  // namespace

absl::StatusOr<std::optional<std::string>> WatchedFile::News(std::chrono::milliseconds every) {
  const auto now = std::chrono::steady_clock::now();
  if (now < look_again_) return std::nullopt;
  look_again_ = now + every;
  struct stat file = {};
  if (stat(path_.c_str(), &file) != 0) return ErrnoStatus(errno, "cannot read", path_);
  if (seen_.has_value() && SameFile(*seen_, file)) return std::nullopt;
  RETRO_ASSIGN_OR_RETURN(std::string content, ReadFile(path_));
  seen_ = file;  // of before the reading: a change meanwhile is seen the next time
  return content;
}

}  // namespace retro
