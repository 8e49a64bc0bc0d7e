// retro.shard.v1.ShardService over a shard of this process.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <memory>

#include "common/base/worker_pool.h"
#include "common/rpc/metrics.h"
#include "common/rpc/unary.h"
#include "retriever_service/shard/replication.h"
#include "retriever_service/shard/shard.h"

namespace retro {

// All must outlive the service. Calls are worked on by `workers`; writes, GetShardInfo, PullChanges and FetchSnapshot
// by threads of their own; without `replication` these and KeepLog answer UNIMPLEMENTED.
std::unique_ptr<grpc::Service> MakeShardService(Shard& shard, WorkerPool& workers, Metrics& metrics,
                                                const UnaryOptions& options = UnaryOptions(),
                                                Replication* replication = nullptr);

}  // namespace retro
