#include "retriever_service/store/acknowledged_mark.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr std::string_view kMagic = "retroack";
constexpr size_t kPositionBytes = 16;
constexpr size_t kCheckBytes = 8;
constexpr size_t kBytes = kMagic.size() + kPositionBytes + kCheckBytes;

std::string Encode(const shardpb::Position& position) {
  std::string bytes = std::string(kMagic) + ChangeKey(position);
  return bytes + Sha256Bytes(bytes).substr(0, kCheckBytes);
}

std::optional<shardpb::Position> Decode(std::string_view bytes) {
  if (bytes.size() != kBytes) return std::nullopt;
  auto position = PositionOfKey(bytes.substr(kMagic.size(), kPositionBytes));
  if (!position.has_value() || Encode(*position) != bytes) return std::nullopt;
  return position;
}

absl::Status SystemError(const std::string& path, std::string_view what) {
  const std::string reason = std::error_code(errno, std::generic_category()).message();
  return Error(absl::StatusCode::kInternal, Reason::kInternal, StrCat("cannot ", what, " ", path, ": ", reason));
}

}  // namespace

absl::StatusOr<std::unique_ptr<AcknowledgedMark>> AcknowledgedMark::Open(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return SystemError(path, "open");
  std::unique_ptr<AcknowledgedMark> mark(new AcknowledgedMark(path, file));
  RETRO_RETURN_IF_ERROR(mark->Read());
  return mark;
}

AcknowledgedMark::~AcknowledgedMark() {
  fdatasync(file_);
  close(file_);
}

absl::Status AcknowledgedMark::Read() {
  std::string bytes(kBytes + 1, '\0');
  const ssize_t size = pread(file_, bytes.data(), bytes.size(), 0);
  if (size < 0) return SystemError(path_, "read");
  if (size == 0) return absl::OkStatus();
  bytes.resize(size);
  found_ = Decode(bytes);
  if (found_.has_value()) return absl::OkStatus();
  return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
               StrCat(path_,
                      " is damaged, so that nothing tells whether the store beside it is whole: restore both "
                      "from a snapshot or a replica, or remove this file to serve what is there"));
}

absl::Status AcknowledgedMark::Write(const shardpb::Position& position) {
  const std::string bytes = Encode(position);
  if (pwrite(file_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return SystemError(path_, "write");
  }
  return absl::OkStatus();
}

}  // namespace retro
