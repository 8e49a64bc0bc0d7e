// A cluster of real processes on loopback: retro-shard for each replica and routers before them, killed and started
// again at will.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "retriever_service/cluster/cluster_file.h"
#include "retro/admin/v1/admin.grpc.pb.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"
#include "tests/temporary_folder.h"

namespace retro {

inline constexpr int kClusterDimension = 32;

class ClusterProcesses {
 public:
  // Replicas are named "s<shard>r<replica>", routers "router<number>"; all are running and in sync when this returns.
  // `late`: how long a primary waits for a replica before it goes on without.
  ClusterProcesses(int shards, int replicas, int routers, std::chrono::milliseconds late = std::chrono::seconds(1));
  ~ClusterProcesses();  // kills all

  std::vector<std::string> names() const;  // replicas, then routers
  bool IsPrimary(const std::string& name) const;
  void Kill(const std::string& name);                // SIGKILL; waits for its end
  int Stop(const std::string& name);                 // SIGTERM; what it exits with, -1 if it does not by itself
  void Signal(const std::string& name, int signal);  // of SIGSTOP, waits until it has stopped
  void Start(const std::string& name);               // waits until it answers
  void Wipe(const std::string& name);                // removes the data of one that is killed
  void WaitUntilAllInSync() const;
  ClusterConfig config() const;
  bool InSync(const std::string& name) const;

  // One that tries again quickly when its router is gone.
  std::unique_ptr<retriever::v1::RetrieverService::Stub> Retriever(int router) const;
  std::unique_ptr<admin::v1::AdminService::Stub> Admin(int router) const;
  // What Verify says of every replica, as "SHA-256 position"; one that does not answer says nothing.
  std::map<std::string, std::string> Digests(int shard) const;
  // Of each shard.
  void ExpectReplicasAlike() const;

 private:
  struct Process {
    std::vector<std::string> command;
    std::string address;
    pid_t pid = -1;
  };
  void Spawn(Process& process);

  TemporaryFolder folder_;
  const std::string file_ = folder_ / "cluster.json";
  std::map<std::string, Process> processes_;
};

}  // namespace retro
