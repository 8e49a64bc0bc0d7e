// Copies of a store's files on their way from one data folder to another, so that a crash at any moment leaves the old
// store or the new one.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/document/protos.h"
#include "retriever_service/shard/local_shard.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// Makes a copy of an open store and hands it over, part by part, in order; an error of `send` ends it. The copy is made
// of hard links in the store's own folder and removed at the end. With the index, if `with_index`, so that who takes it
// answers alike and has nothing to make again.
absl::Status SendStoreCopy(const LocalShard& shard, const std::string& data, bool with_index,
                           const std::function<absl::Status(const shardpb::FetchSnapshotResponse&)>& send);

// Takes such parts into a data folder, beside the store that is there.
class StoreCopyReceiver {
 public:
  // Removes what an earlier one left.
  static absl::StatusOr<StoreCopyReceiver> Start(const std::string& data);

  // DATA_LOSS (STORE_DAMAGED) if a file does not have its checksum, or a name is none of a store's.
  absl::Status Take(const shardpb::FetchSnapshotResponse& part);
  // After the last part, once nobody has the old store open: puts the copy in its place.
  absl::Status Install();

 private:
  explicit StoreCopyReceiver(std::string data) : data_(std::move(data)) {}
  absl::Status Begin(const std::string& name);
  std::string data_;
  std::string file_name_;  // of the file that is coming
  std::optional<AtomicFile> file_;
  std::unique_ptr<Sha256> hash_;
  bool complete_ = false;
};

// To be called before a store is opened: ends an Install that was cut short, removes copies that were.
absl::Status FinishStoreCopy(const std::string& data);

}  // namespace retro
