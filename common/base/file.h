// Files as whole things: read, mapped, replaced. Errors name the file and say what the system said.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace retro {

// The whole file. NOT_FOUND, PERMISSION_DENIED, or INTERNAL for other read errors.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// Replaces `path` by `bytes` so that after a crash it holds the old content or the new: written beside it, synced,
// renamed.
absl::Status WriteFileAtomically(const std::string& path, std::string_view bytes);
// The same for a file given in pieces, one after the other.
absl::Status WriteFileAtomically(const std::string& path, std::span<const std::string_view> pieces);

// The same for a file that is written as its bytes come: nothing of it stays in memory, and nothing of it is seen
// before Commit. Without Commit the destructor removes what was written. The disk gets it as it comes: were it all to
// wait for Commit, every other file's sync would wait for it too.
class AtomicFile {
 public:
  static absl::StatusOr<AtomicFile> Create(const std::string& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  absl::Status Append(std::string_view bytes);
  absl::Status Commit();

 private:
  AtomicFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  absl::Status Writeback();

  std::string path_;
  int descriptor_;
  // Bytes: written, of these sent to the disk, and of these there.
  uint64_t size_ = 0, sent_ = 0, arrived_ = 0;
};

// Renames a file or a folder so that it has its new name after a crash too.
absl::Status RenameDurably(const std::string& from, const std::string& to);

// A file mapped read-only; unmapped by the destructor. Movable.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::string_view bytes() const { return {static_cast<const char*>(data_), size_}; }
  // Lets go of the memory that holds a part of the bytes, which were read for the last time for now.
  void Forget(std::string_view part) const;

 private:
  MappedFile(void* data, size_t size) : data_(data), size_(size) {}
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Status for a failed system call on `path`, from errno: NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED (disk full)
// or INTERNAL.
absl::Status ErrnoStatus(int error_number, std::string_view what, std::string_view path);

}  // namespace retro
