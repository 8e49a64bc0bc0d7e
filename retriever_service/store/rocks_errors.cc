#include "retriever_service/store/rocks_errors.h"

#include <string_view>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "retriever_service/store/disk_room.h"

namespace retro {
namespace {

bool Says(const std::string& text, std::string_view what) { return text.find(what) != std::string::npos; }

}  // namespace

bool IsNoSpace(const rocksdb::Status& status) {
  return status.IsNoSpace() || (status.IsIOError() && status.subcode() == rocksdb::Status::kNoSpace);
}

bool IsDamage(const rocksdb::Status& status) {
  if (status.IsCorruption() || status.IsPathNotFound()) return true;
  return status.IsIOError() && !IsNoSpace(status) && Says(status.ToString(), "While pread");
}

bool DidNothing(const rocksdb::Status& status) {
  const std::string text = status.ToString();
  const bool of_log =
      Says(text, ".log: ") && (Says(text, "While appending to file") || Says(text, "While open a file"));
  return IsNoSpace(status) && (of_log || Says(text, ".sst: "));
}

absl::Status FromRocks(const rocksdb::Status& status, const std::string& path) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  if (IsNoSpace(status)) return DiskFullError(path, text);
  if (IsDamage(status)) {
    return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                 StrCat("the store in ", path, " is damaged: restore it from a snapshot or a replica (", text, ")"));
  }
  if (status.IsIOError() && Says(text, "/LOCK")) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kStoreLocked,
                 StrCat("the store in ", path, " is in use by another process: stop that one or name another folder"));
  }
  return Error(absl::StatusCode::kInternal, Reason::kInternal, StrCat("the store in ", path, ": ", text));
}

}  // namespace retro
