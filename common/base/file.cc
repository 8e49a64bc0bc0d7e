#include "common/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <system_error>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr char kTemporary[] = ".tmp";  // suffix of a file that is not complete yet
constexpr uint64_t kWritebackBytes = 4 << 20;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::StatusOr<size_t> RegularFileSize(int fd, const std::string& path) {
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "cannot stat", path);
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(StrCat(path, " is not a regular file"));
  return static_cast<size_t>(info.st_size);
}

absl::Status WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "cannot write", path);
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

// So that the names in it are those after a crash.
absl::Status SyncFolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor directory(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0 || fsync(directory.get()) != 0) return ErrnoStatus(errno, "cannot sync", folder);
  return absl::OkStatus();
}

// What can be done about it.
std::string_view AdviceOn(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return " (check the path)";
    case EACCES:
    case EPERM:
      return " (change its permissions, or run as who may)";
    case ENOSPC:
    case EDQUOT:
      return " (make room)";
    default:
      return "";
  }
}

}  // namespace

absl::Status ErrnoStatus(int error_number, std::string_view what, std::string_view path) {
  const std::string message =
      StrCat(what, " ", path, ": ", std::generic_category().message(error_number), AdviceOn(error_number));
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Error(absl::StatusCode::kResourceExhausted, Reason::kReadOnly, message);
    default:
      return absl::InternalError(message);
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return ErrnoStatus(errno, "cannot open", path);
  std::string bytes;
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = read(file.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "cannot read", path);
    if (n == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(n));
  }
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view bytes) {
  return WriteFileAtomically(path, std::span(&bytes, 1));
}

absl::Status WriteFileAtomically(const std::string& path, std::span<const std::string_view> pieces) {
  RETRO_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  for (const std::string_view piece : pieces) RETRO_RETURN_IF_ERROR(file.Append(piece));
  return file.Commit();
}

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& path) {
  // Its name can be foretold: a link that somebody has put there leads nowhere.
  const int descriptor = open((path + kTemporary).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor < 0) return ErrnoStatus(errno, "cannot create", path + kTemporary);
  return AtomicFile(path, descriptor);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_),
      sent_(other.sent_),
      arrived_(other.arrived_) {}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  unlink((path_ + kTemporary).c_str());
}

absl::Status AtomicFile::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view some = bytes.substr(0, kWritebackBytes);
    RETRO_RETURN_IF_ERROR(WriteAll(descriptor_, some, path_ + kTemporary));
    size_ += some.size();
    if (size_ - sent_ >= kWritebackBytes) RETRO_RETURN_IF_ERROR(Writeback());
    bytes.remove_prefix(some.size());
  }
  return absl::OkStatus();
}

// Sends what is new to the disk, and waits for what was sent before: twice as much is on its way at most.
absl::Status AtomicFile::Writeback() {
  const auto fails = [this](uint64_t begin, uint64_t end, unsigned flags) {
    if (begin == end) return false;  // to the system it would mean everything
    if (sync_file_range(descriptor_, static_cast<off64_t>(begin), static_cast<off64_t>(end - begin), flags) == 0) {
      return false;
    }
    // These a sync would not tell again. Anything else means that the call is not to be had: Commit syncs it all.
    return errno == EIO || errno == ENOSPC || errno == EDQUOT;
  };
  if (fails(sent_, size_, SYNC_FILE_RANGE_WRITE) || fails(arrived_, sent_, SYNC_FILE_RANGE_WAIT_BEFORE)) {
    return ErrnoStatus(errno, "cannot write", path_ + kTemporary);
  }
  arrived_ = std::exchange(sent_, size_);
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  const std::string temporary = path_ + kTemporary;
  if (fsync(descriptor_) != 0) return ErrnoStatus(errno, "cannot sync", temporary);
  if (rename(temporary.c_str(), path_.c_str()) != 0) return ErrnoStatus(errno, "cannot rename to", path_);
  close(std::exchange(descriptor_, -1));
  return SyncFolderOf(path_);
}

absl::Status RenameDurably(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) != 0) return ErrnoStatus(errno, "cannot move into place", to);
  return SyncFolderOf(to);
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return ErrnoStatus(errno, "cannot open", path);
  RETRO_ASSIGN_OR_RETURN(const size_t size, RegularFileSize(file.get(), path));
  if (size == 0) return MappedFile(nullptr, 0);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) return ErrnoStatus(errno, "cannot map", path);
  return MappedFile(data, size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::Forget(std::string_view part) const {
  if (part.empty()) return;
  // Whole pages within the part only: what lies beside it may be in use. The mapping begins on a page.
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const auto first = static_cast<size_t>(part.data() - static_cast<const char*>(data_));
  const size_t begin = (first + page - 1) / page * page;
  const size_t end = (first + part.size()) / page * page;
  // Advice: if it is not taken, the pages stay until memory is short.
  if (begin < end) madvise(static_cast<char*>(data_) + begin, end - begin, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace retro
