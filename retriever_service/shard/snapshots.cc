#include "retriever_service/shard/snapshots.h"

#include <fmt/format.h>
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/file_lock.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/snapshot_name.h"
#include "retriever_service/store/disk_room.h"
#include "retriever_service/store/folder.h"

namespace retro {
namespace {

namespace fs = std::filesystem;
using google::protobuf::util::TimeUtil;

constexpr char kManifest[] = "/snapshot";
// What the name of a snapshot's folder begins with until it is whole, and once it is being deleted; with a lock beside
// it that who makes it holds.
constexpr char kUnfinished[] = ".unfinished-";
constexpr char kLock[] = ".lock";

absl::Status FromSystem(const std::error_code& error, std::string_view what, const std::string& path) {
  return error ? ErrnoStatus(error.value(), what, path) : absl::OkStatus();
}

// Names come over the wire and must stay within the folder.
bool IsName(const std::string& name) {
  return !name.empty() && name[0] != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '.';
  });
}

// A snapshot is folders and files. A link would have whoever reads it read something else.
bool HoldsLinks(const std::string& folder) {
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (std::error_code ignored; it->is_symlink(ignored)) return true;
  }
  return false;
}

absl::Status NoSnapshot(const std::string& name) {
  return Error(absl::StatusCode::kNotFound, Reason::kNotFound,
               StrCat("there is no snapshot \"", IsName(name) ? name : "", "\": see ListSnapshots"));
}

absl::Status DamagedSnapshot(const std::string& name, std::string_view how) {
  return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
               StrCat("snapshot \"", name, "\" ", how, ": restore another one"));
}

// Removes what processes that died have left in the folder: nobody holds its lock. Of no matter to what comes after it.
void RemoveRemains(const std::string& folder) {
  std::error_code error;
  for (const std::string& name : NamesIn(folder, error)) {
    if (!name.starts_with(kUnfinished) || name.ends_with(kLock)) continue;
    const std::string path = StrCat(folder, "/", name);
    const auto lock = FileLock::TryTake(path + kLock);
    if (!lock.ok() || !lock->has_value()) continue;
    fs::remove_all(path, error);
    fs::remove(path + kLock, error);
  }
}

}  // namespace

absl::Status Snapshots::CheckServed() const {
  if (!folder_.empty()) return absl::OkStatus();
  return Error(absl::StatusCode::kUnimplemented, Reason::kNotSupported,
               "this server keeps no snapshots: start it with --snapshot-dir");
}

absl::StatusOr<std::string> Snapshots::NewName(const LocalShard& shard) const {
  RETRO_RETURN_IF_ERROR(CheckServed());
  static std::atomic<uint32_t> names = 0;
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  gmtime_r(&now, &utc);
  const shardpb::Position position = shard.position();
  const StoreIdentity& identity = shard.store().identity();
  return fmt::format("{}{:04}{:02}{:02}-{:02}{:02}{:02}-{}.{}-{}",
                     SnapshotNamePrefix(identity.store_id, identity.shard), utc.tm_year + 1900, utc.tm_mon + 1,
                     utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, position.epoch(), position.number(), ++names);
}

absl::Status Snapshots::Create(const std::string& name, const LocalShard& shard, uint32_t first_slot,
                               uint32_t last_slot, const std::function<absl::Status()>& go_on) const {
  RETRO_RETURN_IF_ERROR(CheckServed());
  admin::v1::Snapshot manifest;
  manifest.set_name(name);
  *manifest.mutable_create_time() = TimeUtil::GetCurrentTime();
  manifest.set_shard(shard.store().identity().shard);
  manifest.set_first_slot(first_slot);
  manifest.set_last_slot(last_slot);
  const std::string folder = PathOf(kUnfinished + name);
  std::error_code error;
  fs::create_directories(folder_, error);
  RETRO_RETURN_IF_ERROR(FromSystem(error, "cannot make", folder_));
  RemoveRemains(folder_);
  RETRO_RETURN_IF_ERROR(go_on());
  RETRO_ASSIGN_OR_RETURN(const FileLock lock, FileLock::Take(folder + kLock));
  fs::create_directory(folder, error);
  RETRO_RETURN_IF_ERROR(FromSystem(error, "cannot make", folder));
  const shardpb::Position position = shard.position();  // before the copy, which holds at least this
  absl::Status status = shard.Copy(folder + "/rocksdb", go_on);
  if (status.ok()) {
    manifest.set_epoch(position.epoch());
    manifest.set_position(position.number());
    manifest.set_size_bytes(BytesIn(folder));
    status = WriteFileAtomically(folder + kManifest, WithChecksum(manifest.SerializeAsString()));
  }
  if (status.ok()) status = RenameDurably(folder, PathOf(name));
  if (!status.ok()) fs::remove_all(folder, error);
  fs::remove(folder + kLock, error);
  return status;
}

absl::StatusOr<std::vector<admin::v1::Snapshot>> Snapshots::List() const {
  RETRO_RETURN_IF_ERROR(CheckServed());
  std::vector<admin::v1::Snapshot> snapshots;
  std::error_code error;
  if (!fs::exists(folder_, error)) return snapshots;
  for (const std::string& name : NamesIn(folder_, error)) {
    auto snapshot = Find(name);
    if (snapshot.ok()) snapshots.push_back(*std::move(snapshot));
  }
  RETRO_RETURN_IF_ERROR(FromSystem(error, "cannot list", folder_));
  std::sort(snapshots.begin(), snapshots.end(),
            [](const auto& a, const auto& b) { return a.create_time() > b.create_time(); });
  return snapshots;
}

absl::StatusOr<admin::v1::Snapshot> Snapshots::Find(const std::string& name) const {
  RETRO_RETURN_IF_ERROR(CheckServed());
  std::error_code error;
  if (!IsName(name) || !fs::is_directory(fs::symlink_status(PathOf(name), error))) return NoSnapshot(name);
  if (HoldsLinks(PathOf(name))) return DamagedSnapshot(name, "holds links");
  return ReadManifest(name);
}

absl::StatusOr<admin::v1::Snapshot> Snapshots::ReadManifest(const std::string& name) const {
  const auto bytes = ReadFile(PathOf(name) + kManifest);
  if (!bytes.ok()) return NoSnapshot(name);
  admin::v1::Snapshot snapshot;
  const auto message = ContentOf(*bytes);
  if (message.has_value() && snapshot.ParseFromArray(message->data(), static_cast<int>(message->size()))) {
    return snapshot;
  }
  return DamagedSnapshot(name, "has a damaged manifest");  // what it says decides what a restore deletes
}

std::optional<int64_t> Snapshots::NewestUnixSeconds(std::string_view store_id, uint32_t shard) const {
  const std::string prefix = SnapshotNamePrefix(store_id, shard);
  std::error_code error;
  std::vector<std::string> names = NamesIn(folder_, error);
  std::erase_if(names, [&](const std::string& name) { return !name.starts_with(prefix); });
  std::sort(names.rbegin(), names.rend());
  for (const std::string& name : names) {
    // A link could lead to what has no end.
    if (!fs::is_directory(fs::symlink_status(PathOf(name), error))) continue;
    if (!fs::is_regular_file(fs::symlink_status(PathOf(name) + kManifest, error))) continue;
    if (const auto snapshot = ReadManifest(name); snapshot.ok()) return snapshot->create_time().seconds();
  }
  return std::nullopt;
}

absl::Status Snapshots::Delete(const std::string& name) const {
  if (const absl::Status found = Find(name).status(); !found.ok() && !absl::IsDataLoss(found)) return found;
  std::error_code error;
  const std::string gone = PathOf(kUnfinished + name);  // not half there, whenever this ends
  RETRO_RETURN_IF_ERROR(RenameDurably(PathOf(name), gone));
  fs::remove_all(gone, error);
  return FromSystem(error, "cannot remove", gone);
}

}  // namespace retro
