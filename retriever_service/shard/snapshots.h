// Snapshots on disk: consistent copies of shards' stores under one folder, each in a folder of its own with the file
// `snapshot` (a retro.admin.v1.Snapshot), which is written last, and the store's `rocksdb/`.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "retriever_service/shard/local_shard.h"
#include "retro/admin/v1/admin.pb.h"

namespace retro {

// Any thread.
class Snapshots {
 public:
  // "" for a server that keeps none: every call answers UNIMPLEMENTED (NOT_SUPPORTED).
  explicit Snapshots(std::string folder) : folder_(std::move(folder)) {}

  // A name that no snapshot has, of a shard's present state.
  absl::StatusOr<std::string> NewName(const LocalShard& shard) const;
  // Slots are the shard's. Removes what a process that died while it made or deleted one has left. Ends with the error
  // of `go_on`, which it asks often.
  absl::Status Create(const std::string& name, const LocalShard& shard, uint32_t first_slot, uint32_t last_slot,
                      const std::function<absl::Status()>& go_on) const;
  absl::StatusOr<std::vector<admin::v1::Snapshot>> List() const;  // newest first
  // NOT_FOUND if there is none.
  absl::Status Delete(const std::string& name) const;
  absl::StatusOr<admin::v1::Snapshot> Find(const std::string& name) const;
  // When the newest of a shard was made; nothing if there is none, or the folder cannot be read. Cheap: it goes by
  // names and looks into no store.
  std::optional<int64_t> NewestUnixSeconds(std::string_view store_id, uint32_t shard) const;

  std::string PathOf(const std::string& name) const { return folder_ + "/" + name; }

 private:
  absl::Status CheckServed() const;
  absl::StatusOr<admin::v1::Snapshot> ReadManifest(const std::string& name) const;

  const std::string folder_;
};

}  // namespace retro
