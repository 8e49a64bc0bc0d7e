#include "tests/cluster_processes.h"

#include <fcntl.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <set>
#include <thread>
#include <utility>

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/tokenizer/tokenizer.h"
#include "retriever_service/embed/hash_embedder.h"
#include "retriever_service/shard/shard_channel.h"
#include "retro/shard/v1/shard.grpc.pb.h"
#include "tests/free_port.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

constexpr std::chrono::seconds kWaitMax{120};
constexpr std::chrono::milliseconds kPause{20};

std::string Program(const std::string& name) {
  return std::filesystem::canonical("/proc/self/exe").parent_path().parent_path() / "bin" / name;
}

template <typename Condition>
void WaitFor(const std::string& what, const Condition& condition) {
  const auto end = std::chrono::steady_clock::now() + kWaitMax;
  while (!condition()) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << what;
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace

ClusterProcesses::ClusterProcesses(int shards, int replicas, int routers, std::chrono::milliseconds late) {
  ClusterConfig config;
  config.version = 1;
  config.cluster = "test";
  config.store_id = "0123456789abcdef";
  const std::string tokenizer_path = SourcePath("common/tokenizer/retro-16k.model");
  const std::string tokenizer = HexEncode((*LoadTokenizer(tokenizer_path))->fingerprint());
  const std::string snapshots = folder_ / "snapshots";
  const std::string embedder = HexEncode(HashEmbedder(kClusterDimension).info().fingerprint);
  for (int s = 0; s < shards; ++s) {
    ShardConfig& shard = config.shards.emplace_back();
    shard.first_slot = kSlotCount * s / shards;
    shard.last_slot = kSlotCount * (s + 1) / shards - 1;
    for (int r = 0; r < replicas; ++r) {
      const std::string name = StrCat("s", s, "r", r);
      const std::string address = StrCat("127.0.0.1:", FreePort());
      shard.replicas.push_back({name, address});
      processes_[name] = {{Program("retro-shard"),
                           "--listen",
                           address,
                           "--cluster-file",
                           file_,
                           "--shard",
                           StrCat(s),
                           "--replica",
                           name,
                           "--data",
                           folder_ / name,
                           "--embedder-fingerprint",
                           embedder,
                           "--tokenizer-fingerprint",
                           tokenizer,
                           "--dimension",
                           StrCat(kClusterDimension),
                           "--late-ms",
                           StrCat(late.count()),
                           "--log-changes-max",
                           "2000",
                           "--index-seal-chunks",  // few, so that segments are sealed and merged all the time
                           "256",
                           "--snapshot-dir",
                           snapshots},
                          address};
    }
    shard.primary = shard.replicas[0].name;
  }
  EXPECT_TRUE(WriteFileAtomically(file_, FormatClusterFile(config)).ok());
  for (int r = 0; r < routers; ++r) {
    const std::string address = StrCat("127.0.0.1:", FreePort());
    processes_[StrCat("router", r)] = {
        {Program("retro-retriever"), "--listen", address, "--role", "router", "--cluster-file", file_, "--tokenizer",
         tokenizer_path, "--embedder", StrCat("hash:", kClusterDimension), "--snapshot-dir", snapshots},
        address};
  }
  for (auto& [name, process] : processes_) {
    if (name[0] == 's') Spawn(process);
  }
  WaitUntilAllInSync();
  for (int r = 0; r < routers; ++r) Start(StrCat("router", r));
}

ClusterProcesses::~ClusterProcesses() {
  for (const auto& [name, process] : processes_) Kill(name);
}

std::vector<std::string> ClusterProcesses::names() const {
  std::vector<std::string> names;
  for (const char first : {'s', 'r'}) {
    for (const auto& [name, process] : processes_) {
      if (name[0] == first) names.push_back(name);
    }
  }
  return names;
}

bool ClusterProcesses::IsPrimary(const std::string& name) const {
  const ClusterConfig now = config();
  for (const ShardConfig& shard : now.shards) {
    if (shard.primary == name) return true;
  }
  return false;
}

void ClusterProcesses::Spawn(Process& process) {
  std::vector<char*> arguments;
  for (std::string& argument : process.command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const std::string log = folder_ / "log";
  process.pid = fork();
  if (process.pid != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  execv(arguments[0], arguments.data());
  _exit(127);
}

void ClusterProcesses::Kill(const std::string& name) {
  Process& process = processes_.at(name);
  if (process.pid < 0) return;
  kill(process.pid, SIGKILL);
  waitpid(process.pid, nullptr, 0);
  process.pid = -1;
}

int ClusterProcesses::Stop(const std::string& name) {
  Process& process = processes_.at(name);
  kill(process.pid, SIGTERM);
  int status = 0;
  waitpid(std::exchange(process.pid, -1), &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void ClusterProcesses::Signal(const std::string& name, int signal) {
  const pid_t pid = processes_.at(name).pid;
  kill(pid, signal);
  if (signal == SIGSTOP) waitpid(pid, nullptr, WUNTRACED);
}

void ClusterProcesses::Start(const std::string& name) {
  Process& process = processes_.at(name);
  Spawn(process);
  const auto channel = MakeShardChannel(process.address);
  WaitFor(name + " starts",
          [&] { return channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::milliseconds(500)); });
  if (name[0] != 'r') return;
  const auto stub = retriever::v1::RetrieverService::NewStub(channel);
  WaitFor(name + " answers", [&] {
    grpc::ClientContext context;
    retriever::v1::StatsResponse response;
    return stub->Stats(&context, {}, &response).ok();
  });
}

void ClusterProcesses::Wipe(const std::string& name) { std::filesystem::remove_all(folder_ / name); }

ClusterConfig ClusterProcesses::config() const {
  auto config = ReadClusterFile(file_);
  EXPECT_TRUE(config.ok()) << config.status();
  return *std::move(config);
}

bool ClusterProcesses::InSync(const std::string& name) const {
  const ClusterConfig now = config();
  for (const ShardConfig& shard : now.shards) {
    if (shard.IsInSync(name)) return true;
  }
  return false;
}

void ClusterProcesses::WaitUntilAllInSync() const {
  WaitFor("all in sync", [&] {
    for (const auto& [name, process] : processes_) {
      if (name[0] == 's' && !InSync(name)) return false;
    }
    return true;
  });
}

std::unique_ptr<retriever::v1::RetrieverService::Stub> ClusterProcesses::Retriever(int router) const {
  return retriever::v1::RetrieverService::NewStub(MakeShardChannel(processes_.at(StrCat("router", router)).address));
}

std::unique_ptr<admin::v1::AdminService::Stub> ClusterProcesses::Admin(int router) const {
  return admin::v1::AdminService::NewStub(MakeShardChannel(processes_.at(StrCat("router", router)).address));
}

std::map<std::string, std::string> ClusterProcesses::Digests(int shard) const {
  std::map<std::string, std::string> digests;
  const ClusterConfig now = config();
  for (const ReplicaConfig& replica : now.shards[shard].replicas) {
    grpc::ClientContext context;
    admin::v1::VerifyRequest request;
    request.set_shard(shard);
    request.set_replica(replica.name);
    admin::v1::VerifyResponse response;
    const grpc::Status status = Admin(0)->Verify(&context, request, &response);
    EXPECT_TRUE(status.ok()) << replica.name << ": " << status.error_message();
    digests[replica.name] = StrCat(HexEncode(response.content_sha256()), " ", response.position());
  }
  return digests;
}

void ClusterProcesses::ExpectReplicasAlike() const {
  for (int shard = 0; shard < static_cast<int>(config().shards.size()); ++shard) {
    std::set<std::string> different;
    for (const auto& [name, digest] : Digests(shard)) different.insert(digest);
    EXPECT_EQ(different.size(), 1u) << "shard " << shard << ": replicas differ";
  }
}

}  // namespace retro
