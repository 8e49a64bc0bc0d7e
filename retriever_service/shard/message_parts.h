// Changes on their way between processes of a cluster: a document may have more rows than one message holds, so that
// its change goes in several.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "common/document/protos.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// What a part has room for; a part is larger if one row or the document's own fields are. It is what a call holds
// beside the request or the rows that it is cut of.
inline constexpr size_t kPartBytesMax = size_t{1} << 20;

// ---------------------------------------------------------------- PullChanges

// Takes the next part of what Store::ReadReplicated gives. What is lost shows in the number of a change's rows.
void AddPart(shardpb::PullChangesResponse part, std::vector<shardpb::PullChangesResponse>& changes);

// ---------------------------------------------------------------- WriteInParts

// The parts of a request, which must outlive this, in this epoch.
class WriteParts {
 public:
  WriteParts(const shardpb::WriteRequest& request, uint64_t epoch, size_t bytes_max = kPartBytesMax)
      : request_(request), epoch_(epoch), bytes_max_(bytes_max) {}
  // Nothing after the last one.
  std::optional<shardpb::WriteRequest> Next();

 private:
  const shardpb::WriteRequest& request_;
  const uint64_t epoch_;
  const size_t bytes_max_;
  int change_ = 0, chunk_ = 0;  // the next ones
};
// INVALID_ARGUMENT if chunks come before their document.
absl::Status AddPart(shardpb::WriteRequest part, shardpb::WriteRequest& request);

}  // namespace retro
