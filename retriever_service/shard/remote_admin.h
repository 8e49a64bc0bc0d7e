// Maintenance of a cluster through a router: calls go to the process that they name.
#pragma once

#include <functional>
#include <memory>

#include "common/rpc/credentials.h"
#include "retriever_service/cluster/cluster_file.h"
#include "retriever_service/shard/admin.h"

namespace retro {

// `cluster` gives the cluster file as it now is. Calls about a shard go to its primary unless they name a replica.
std::unique_ptr<Admin> MakeRemoteAdmin(std::function<std::shared_ptr<const ClusterConfig>()> cluster,
                                       const ClientSecurity& security);

}  // namespace retro
