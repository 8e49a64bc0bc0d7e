#include "retriever_service/store/disk_room.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <system_error>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "retriever_service/store/folder.h"

namespace retro {
namespace {

constexpr std::chrono::seconds kRetryAfter{5};
constexpr uint64_t kSmallFilesBytes = uint64_t{4} << 20;  // with some room to spare

}  // namespace

absl::Status ReadOnlyError(std::string_view why) {
  absl::Status error = Error(absl::StatusCode::kResourceExhausted, Reason::kReadOnly, why);
  SetRetryAfter(error, kRetryAfter);
  return error;
}

absl::Status DiskFullError(const std::string& folder, std::string_view text) {
  return ReadOnlyError(
      StrCat("the disk under ", folder, " is full: free some space; reads go on meanwhile (", text, ")"));
}

absl::Status BusyWithReadersError(const std::string& folder) {
  return ReadOnlyError(
      StrCat("the disk under ", folder, " was full, and writing resumes once those who have read for long end"));
}

absl::Status OpenedAnewError(const std::string& folder) {
  return Error(
      absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
      StrCat("the store in ", folder, " was opened anew meanwhile, as its disk had been full: repeat the call"));
}

absl::Status CheckRoom(const std::string& folder) {
  uint64_t bytes = kSmallFilesBytes;
  std::error_code error;
  for (const std::string& name : NamesIn(folder, error)) {
    if (name.ends_with(".sst")) continue;
    const std::string path = StrCat(folder, "/", name);
    std::error_code gone;
    const uintmax_t size = std::filesystem::is_regular_file(path, gone) ? std::filesystem::file_size(path, gone) : 0;
    if (!gone) bytes += size;
  }
  // What the file system says first: taking the room to see whether it is there keeps it from others meanwhile.
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  absl::Status full = DiskFullError(folder, StrCat("writing goes on once ", bytes >> 20, " MiB are free"));
  if (!error && space.available < bytes) return full;
  const std::string probe = folder + "/room";
  const int file = open(probe.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0 && errno == ENOSPC) return DiskFullError(folder, "not a file can be made");
  if (file < 0) return ErrnoStatus(errno, "cannot make", probe);
  unlink(probe.c_str());  // gone with its room, whatever happens
  const int refused = posix_fallocate(file, 0, static_cast<off_t>(bytes));
  close(file);
  return refused == 0 ? absl::OkStatus() : full;
}

uint64_t BytesIn(const std::string& folder) {
  uint64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code gone;  // files come and go while compactions run
    const uintmax_t size = it->is_regular_file(gone) ? it->file_size(gone) : 0;
    if (!gone) bytes += size;
  }
  return bytes;
}

}  // namespace retro
