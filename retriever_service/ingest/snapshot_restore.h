// A snapshot's documents on their way back into a store, whatever number of shards that has: in the slots that the
// snapshot is of, what the store has and the snapshot has not is deleted, and what differs is written, each document by
// one change, whatever external version it has. Searches go on meanwhile, and see the one or the other of each
// document.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "common/base/call_context.h"
#include "retriever_service/query/shard_map.h"
#include "retro/admin/v1/admin.pb.h"

namespace retro {

// `path` is the snapshot's folder; nothing in it is changed. `progress` is told how far it is, 0 to 1, and
// may end it, at once: it is asked while a shard works, too, on whatever thread.
// If it ends with an error, what it has done stays, and it may be done again. EMBEDDER_MISMATCH or TOKENIZER_MISMATCH,
// and nothing is done, if a collection was made otherwise.
absl::Status RestoreSnapshot(const std::string& path, const admin::v1::Snapshot& snapshot, ShardMap& shards,
                             const std::function<absl::Status(float)>& progress);

}  // namespace retro
