// Maintenance as retro-retriever serves it: what concerns one shard goes to that shard, snapshots are listed, deleted
// and restored here, onto whatever shards there are.
#pragma once

#include <memory>
#include <string>

#include "retriever_service/query/shard_map.h"
#include "retriever_service/shard/admin.h"

namespace retro {

// `shards` must outlive the result. `snapshot_dir` is the one that the shards have, "" for none.
std::unique_ptr<Admin> MakeRestoringAdmin(std::unique_ptr<Admin> of_shards, ShardMap& shards,
                                          const std::string& snapshot_dir);

}  // namespace retro
