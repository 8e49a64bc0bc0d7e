// Maintenance of one replica, in its own process.
#pragma once

#include <memory>
#include <string>

#include "retriever_service/replica/replica.h"
#include "retriever_service/shard/admin.h"

namespace retro {

// `replica` must outlive the result. Calls must name its shard, and no other replica. `snapshot_dir` is "" for none.
std::unique_ptr<Admin> MakeReplicaAdmin(Replica& replica, const std::string& snapshot_dir = "");

}  // namespace retro
