// A file that grows at its end and can be cut back to a point that was noted: what a killed program goes on from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace retro {

// Movable; closed by the destructor. Errors name the file; RESOURCE_EXHAUSTED: the disk is full. One thread at a time.
class AppendFile {
 public:
  // Opens or makes `path` and cuts it to `size` bytes. DATA_LOSS if it has fewer.
  static absl::StatusOr<AppendFile> Open(const std::string& path, uint64_t size);
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;
  ~AppendFile();

  absl::Status Append(std::string_view bytes);
  // What was appended is on the disk.
  absl::Status Sync();

  uint64_t size() const { return size_; }

 private:
  AppendFile(std::string path, int descriptor, uint64_t size)
      : path_(std::move(path)), descriptor_(descriptor), size_(size) {}

  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

}  // namespace retro
