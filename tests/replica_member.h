// A replica of one shard with its server, in this process: one process's worth.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "common/base/worker_pool.h"
#include "common/rpc/server.h"
#include "retriever_service/replica/replica.h"
#include "retriever_service/shard/shard_service.h"

namespace retro {

class Member {
 public:
  Member(const std::string& cluster_file, const std::string& data, const std::string& name, const std::string& address,
         uint64_t log_changes_max, std::chrono::milliseconds late_after)
      : workers_(4, 64) {
    auto watch = ClusterWatch::Start(cluster_file);
    EXPECT_TRUE(watch.ok()) << watch.status();
    watch_ = *std::move(watch);
    ReplicaOptions options;
    options.name = name;
    options.late_after = late_after;
    options.local.store.path = data;
    options.local.store.log_changes_max = log_changes_max;
    options.local.default_collection.emplace().set_dimension(2);
    auto replica = Replica::Start(options, *watch_);
    EXPECT_TRUE(replica.ok()) << replica.status();
    replica_ = *std::move(replica);
    service_ = MakeShardService(replica_->shard(), workers_, metrics_, UnaryOptions(), replica_.get());
    ServerOptions server_options;
    server_options.listen = address;
    server_options.drain_max = std::chrono::milliseconds(0);
    auto server = RpcServer::Start(server_options, {service_.get()});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  ~Member() {
    server_.reset();
    workers_.Stop();
  }

  Replica& replica() { return *replica_; }
  ReplicaShard& shard() { return replica_->shard(); }

 private:
  Metrics metrics_;
  WorkerPool workers_;
  std::unique_ptr<ClusterWatch> watch_;
  std::unique_ptr<Replica> replica_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace retro
