#include "retriever_service/store/acknowledged_mark.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
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

absl::StatusOr<std::optional<shardpb::Position>> AcknowledgedMark::Read(const std::string& path) {
  const absl::StatusOr<std::string> bytes = ReadFile(path);
  if (absl::IsNotFound(bytes.status())) return std::nullopt;
  if (!bytes.ok()) return bytes.status();
  if (bytes->empty()) return std::nullopt;
  if (auto found = Decode(*bytes); found.has_value()) return found;
  return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
               StrCat(path,
                      " is damaged, so that nothing tells whether the store beside it is whole: restore both "
                      "from a snapshot or a replica, or remove this file to serve what is there"));
}

absl::StatusOr<std::unique_ptr<AcknowledgedMark>> AcknowledgedMark::Open(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(auto found, Read(path));
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return SystemError(path, "open");
  return std::unique_ptr<AcknowledgedMark>(new AcknowledgedMark(path, file, std::move(found)));
}

AcknowledgedMark::~AcknowledgedMark() {
  fdatasync(file_);
  close(file_);
}

absl::Status AcknowledgedMark::Write(const shardpb::Position& position) {
  const std::string bytes = Encode(position);
  if (pwrite(file_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return SystemError(path_, "write");
  }
  return absl::OkStatus();
}

}  // namespace retro
