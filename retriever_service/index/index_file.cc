#include "retriever_service/index/index_file.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <system_error>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

// What Checksum is of the pieces in a row.
class PiecewiseChecksum {
 public:
  PiecewiseChecksum() : state_(XXH3_createState()) {
    if (state_ == nullptr || XXH3_64bits_reset(state_) != XXH_OK) std::abort();  // only out of memory
  }
  ~PiecewiseChecksum() { XXH3_freeState(state_); }
  PiecewiseChecksum(const PiecewiseChecksum&) = delete;
  PiecewiseChecksum& operator=(const PiecewiseChecksum&) = delete;

  void Update(const char* bytes, size_t size) { XXH3_64bits_update(state_, bytes, size); }
  uint64_t Value() const { return XXH3_64bits_digest(state_); }

 private:
  XXH3_state_t* const state_;
};

// Read, not mapped: where a disk does not give a mapped byte, the process is ended and nobody learns of which file.
absl::StatusOr<shardpb::IndexFile> Describe(int descriptor, const std::string& path) {
  const auto piece = std::make_unique_for_overwrite<char[]>(kPieceBytes);
  PiecewiseChecksum checksum;
  uint64_t size = 0;
  while (true) {
    const ssize_t n = pread(descriptor, piece.get(), kPieceBytes, static_cast<off_t>(size));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return absl::DataLossError(
          StrCat(path, " cannot be read at byte ", size, ": ", std::generic_category().message(errno)));
    }
    if (n == 0) break;
    checksum.Update(piece.get(), static_cast<size_t>(n));
    size += static_cast<size_t>(n);
  }
  shardpb::IndexFile file;
  file.set_bytes(size);
  file.set_checksum(checksum.Value());
  return file;
}

}  // namespace

absl::StatusOr<shardpb::IndexFile> DescribeFile(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return ErrnoStatus(errno, "cannot open", path);
  auto file = Describe(descriptor, path);
  close(descriptor);
  return file;
}

absl::StatusOr<MappedFile> MapWhole(const std::string& path, const shardpb::IndexFile& file) {
  RETRO_ASSIGN_OR_RETURN(const shardpb::IndexFile found, DescribeFile(path));
  if (found.bytes() != file.bytes() || found.checksum() != file.checksum()) {
    return absl::DataLossError(StrCat(path, " is damaged"));
  }
  return MappedFile::Open(path);
}

}  // namespace retro
