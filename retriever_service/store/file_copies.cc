#include "retriever_service/store/file_copies.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

namespace fs = std::filesystem;

using GoOn = std::function<absl::Status()>;

constexpr uint64_t kPartBytes = uint64_t{1} << 20;

absl::Status CopyBytes(const FileToCopy& file, const std::string& to, const GoOn& go_on) {
  std::ifstream from(file.path, std::ios::binary);
  RETRO_ASSIGN_OR_RETURN(AtomicFile copy, AtomicFile::Create(to));
  std::string part;
  for (uint64_t left = file.bytes; left > 0; left -= part.size()) {
    RETRO_RETURN_IF_ERROR(go_on());
    part.resize(static_cast<size_t>(std::min(left, kPartBytes)));
    if (!from.read(part.data(), static_cast<std::streamsize>(part.size()))) {
      return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                   StrCat(file.path, " cannot be read to its end: restore the store from a snapshot or a replica"));
    }
    RETRO_RETURN_IF_ERROR(copy.Append(part));
  }
  return copy.Commit();
}

absl::Status CopyOne(const FileToCopy& file, const std::string& to, const GoOn& go_on) {
  RETRO_RETURN_IF_ERROR(go_on());
  if (!file.content.empty()) return WriteFileAtomically(to, file.content);
  if (file.may_grow) return CopyBytes(file, to, go_on);
  std::error_code error;
  fs::create_hard_link(file.path, to, error);
  return error ? CopyBytes(file, to, go_on) : absl::OkStatus();  // as to another file system
}

absl::Status CopyAll(const std::vector<FileToCopy>& files, const std::string& folder, const GoOn& go_on) {
  for (const FileToCopy& file : files) {
    RETRO_RETURN_IF_ERROR(CopyOne(file, StrCat(folder, "/", file.name), go_on));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CopyFiles(std::vector<FileToCopy> files, const std::string& folder, const GoOn& go_on) {
  // Those that are written last: that makes the folder durable, with the links in it.
  std::stable_partition(files.begin(), files.end(),
                        [](const FileToCopy& file) { return !file.may_grow && file.content.empty(); });
  std::error_code error;
  if (!fs::create_directory(folder, error)) {
    return ErrnoStatus(error ? error.value() : EEXIST, "cannot make the folder", folder);
  }
  absl::Status status = CopyAll(files, folder, go_on);
  if (!status.ok()) fs::remove_all(folder, error);
  return status;
}

}  // namespace retro
