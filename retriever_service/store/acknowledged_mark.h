// The newest change that the store has called durable, in a file of its own beside the store's log.
//
// RocksDB can't tell a record that a crash cut short, which nobody was promised, from one that was whole and lost its
// end or its length later: both end the log. This mark can: a store that ends before it has lost something.
//
// It is written after the log is synced and before anybody is told, and not synced itself: it survives the end of the
// process at any moment, and the machine's once the kernel has written it back. Behind the log it proves less, and is
// never wrong. The bytes are in FORMAT.md.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/document/protos.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

class AcknowledgedMark {
 public:
  // What the file has, which may be missing. DATA_LOSS (STORE_DAMAGED) if it is not as this wrote it.
  static absl::StatusOr<std::optional<shardpb::Position>> Read(const std::string& path);
  // Opens the file, or makes it, without a position.
  static absl::StatusOr<std::unique_ptr<AcknowledgedMark>> Open(const std::string& path);
  // Syncs.
  ~AcknowledgedMark();
  AcknowledgedMark(const AcknowledgedMark&) = delete;
  AcknowledgedMark& operator=(const AcknowledgedMark&) = delete;

  // As the file had it when it was opened; none if it was just made.
  const std::optional<shardpb::Position>& found() const { return found_; }
  // After a failure the file has the position before.
  absl::Status Write(const shardpb::Position& position);

 private:
  AcknowledgedMark(std::string path, int file, std::optional<shardpb::Position> found)
      : path_(std::move(path)), file_(file), found_(std::move(found)) {}

  const std::string path_;
  const int file_;
  const std::optional<shardpb::Position> found_;
};

}  // namespace retro
