// The cluster file: which shards a store has, which slots each holds, its replicas and where they listen, which of them
// is the primary, and which are in sync. JSON; docs/consistency.md has an example and says what each key is.
//
// Operators write it once. Afterwards the shards' primaries keep epoch, position and in_sync, a promotion the primary,
// and an operator's command read_only; all of them change the one file, which must lie on storage that they share: it
// decides who may acknowledge writes. Routers only read it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace retro {

inline constexpr uint64_t kFoundingEpoch = 1;

struct ReplicaConfig {
  std::string name;     // unique in the cluster
  std::string address;  // host:port, or a gRPC name
};

struct ShardConfig {
  uint32_t first_slot = 0;
  uint32_t last_slot = 0;
  uint64_t epoch = kFoundingEpoch;
  std::string primary;
  std::vector<std::string> in_sync;  // the primary among them; empty in epoch 1
  bool read_only = false;            // whoever is the primary refuses changes
  // Epoch and number of the newest change that the primary had when it, the epoch or in_sync last changed: a primary
  // with less has lost something. None where an older version founded the shard: it does not know the key.
  std::optional<std::pair<uint64_t, uint64_t>> position;
  std::vector<ReplicaConfig> replicas;

  bool IsInSync(std::string_view replica) const;
  const ReplicaConfig* Find(std::string_view replica) const;  // null if there is none
};

struct ClusterConfig {
  uint64_t version = 0;
  std::string cluster;
  std::string store_id;  // 16 bytes
  uint32_t min_in_sync = 1;
  std::vector<ShardConfig> shards;  // by number

  // SHA-256 of the content; 32 bytes.
  std::string Fingerprint() const;
};

// INVALID_ARGUMENT, naming `path` and the place, for anything that is not as above: unknown and missing keys, gaps
// between slots, names that are not unique, a primary that is no replica or not in sync.
absl::StatusOr<ClusterConfig> ParseClusterFile(std::string_view json, const std::string& path);
std::string FormatClusterFile(const ClusterConfig& config);

absl::StatusOr<ClusterConfig> ReadClusterFile(const std::string& path);

// Changes the file: under a lock that all processes which do so take (PATH.lock), `change` is given what the file holds
// and returns an error, which is passed on, to leave it alone. The version is raised by one. Returns what it then
// holds. UNAVAILABLE (SHARD_UNAVAILABLE) if another process, which may stand still, keeps the lock for `wait_max`.
absl::StatusOr<ClusterConfig> UpdateClusterFile(const std::string& path,
                                                const std::function<absl::Status(ClusterConfig&)>& change,
                                                std::chrono::milliseconds wait_max = std::chrono::seconds(5));

}  // namespace retro
