#include "retriever_service/cluster/cluster_file.h"

#include <algorithm>
#include <chrono>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/file_lock.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

using nlohmann::json;

constexpr size_t kStoreIdDigits = 32;
constexpr size_t kNameBytesMax = 128;
constexpr size_t kAddressBytesMax = 512;
constexpr size_t kReplicasMax = 16;
constexpr int kIndent = 2;
constexpr std::chrono::milliseconds kLockPause{5};

// Reads one object; the first thing that is wrong is kept, and names its place.
class Reader {
 public:
  Reader(const json& object, std::string place, absl::Status& error)
      : object_(object), place_(std::move(place)), error_(error) {
    if (!object.is_object()) Fail("is no object");
  }

  void Keys(std::initializer_list<std::string_view> known) {
    if (!object_.is_object()) return;
    for (const auto& [key, value] : object_.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end()) Fail(StrCat("has an unknown key \"", key, "\""));
    }
  }
  bool Has(const char* key) const { return object_.is_object() && object_.contains(key); }

  const json& Array(const char* key) {
    static const json& empty = *new json(json::array());
    if (Has(key) && object_[key].is_array()) return object_[key];
    Fail(StrCat("lacks the list \"", key, "\""));
    return empty;
  }
  std::string Text(const char* key, size_t bytes_max) {
    if (!Has(key) || !object_[key].is_string()) {
      Fail(StrCat("lacks the text \"", key, "\""));
      return "";
    }
    std::string text = object_[key];
    if (text.empty() || text.size() > bytes_max) Fail(StrCat("\"", key, "\" is empty or too long"));
    return text;
  }
  uint64_t Number(const char* key, uint64_t least, uint64_t most) {
    if (Has(key)) return NumberOf(object_[key], key, least, most);
    Fail(StrCat("lacks the number \"", key, "\""));
    return least;
  }
  bool Flag(const char* key) {
    if (Has(key) && object_[key].is_boolean()) return object_[key];
    Fail(StrCat("\"", key, "\" is neither true nor false"));
    return false;
  }
  uint64_t NumberOf(const json& value, std::string_view what, uint64_t least, uint64_t most) {
    if (value.is_number_unsigned() && value.get<uint64_t>() >= least && value.get<uint64_t>() <= most) return value;
    Fail(StrCat("\"", what, "\" is no whole number from ", least, " to ", most));
    return least;
  }
  void Fail(std::string_view what) {
    if (error_.ok()) {
      error_ = Error(absl::StatusCode::kInvalidArgument, Reason::kInvalidField, StrCat(place_, " ", what));
    }
  }

 private:
  const json& object_;
  const std::string place_;
  absl::Status& error_;
};

ReplicaConfig ReadReplica(const json& object, const std::string& place, absl::Status& error) {
  Reader reader(object, place, error);
  reader.Keys({"name", "address"});
  return {reader.Text("name", kNameBytesMax), reader.Text("address", kAddressBytesMax)};
}

void ReadInSync(Reader& reader, ShardConfig& shard) {
  if (shard.epoch == kFoundingEpoch) {
    if (reader.Has("in_sync")) reader.Fail("has \"in_sync\" in epoch 1, when nothing is written yet");
    return;
  }
  for (const json& name : reader.Array("in_sync")) {
    if (!name.is_string() || shard.Find(name.get<std::string>()) == nullptr) {
      return reader.Fail("has a name in \"in_sync\" that is none of its replicas'");
    }
    if (shard.IsInSync(name.get<std::string>())) return reader.Fail("has a name in \"in_sync\" twice");
    shard.in_sync.push_back(name);
  }
  if (!shard.IsInSync(shard.primary)) reader.Fail("has a \"primary\" that is not in \"in_sync\"");
}

std::pair<uint64_t, uint64_t> ReadPosition(Reader& reader) {
  const json& position = reader.Array("position");
  if (position.size() == 2) {
    return {reader.NumberOf(position[0], "position", 0, UINT64_MAX),
            reader.NumberOf(position[1], "position", 0, UINT64_MAX)};
  }
  reader.Fail("\"position\" has not just an epoch and a number");
  return {};
}

ShardConfig ReadShard(const json& object, const std::string& place, absl::Status& error) {
  Reader reader(object, place, error);
  reader.Keys({"slots", "epoch", "position", "primary", "in_sync", "read_only", "replicas"});
  ShardConfig shard;
  const json& slots = reader.Array("slots");
  if (slots.size() == 2) {
    shard.first_slot = static_cast<uint32_t>(reader.NumberOf(slots[0], "slots", 0, kSlotCount - 1));
    shard.last_slot = static_cast<uint32_t>(reader.NumberOf(slots[1], "slots", shard.first_slot, kSlotCount - 1));
  } else {
    reader.Fail("\"slots\" has not just the first and the last one");
  }
  shard.epoch = reader.Number("epoch", kFoundingEpoch, UINT64_MAX - 1);
  if (reader.Has("position")) shard.position = ReadPosition(reader);
  shard.primary = reader.Text("primary", kNameBytesMax);
  if (reader.Has("read_only")) shard.read_only = reader.Flag("read_only");
  const json& replicas = reader.Array("replicas");
  if (replicas.empty() || replicas.size() > kReplicasMax) {
    reader.Fail(StrCat("has not 1 to ", kReplicasMax, " replicas"));
  }
  for (size_t i = 0; i < replicas.size(); ++i) {
    shard.replicas.push_back(ReadReplica(replicas[i], StrCat(place, ".replicas[", i, "]"), error));
  }
  if (shard.Find(shard.primary) == nullptr) reader.Fail("has a \"primary\" that is none of its replicas");
  ReadInSync(reader, shard);
  return shard;
}

// What holds of all shards together.
void CheckShards(Reader& reader, const std::vector<ShardConfig>& shards) {
  uint32_t next_slot = 0;
  std::set<std::string> names, addresses;
  for (size_t i = 0; i < shards.size(); ++i) {
    if (shards[i].first_slot != next_slot) {
      return reader.Fail(StrCat("shards[", i, "] begins with slot ", shards[i].first_slot,
                                ", the one before it ends at ", static_cast<int64_t>(next_slot) - 1));
    }
    next_slot = shards[i].last_slot + 1;
    for (const ReplicaConfig& replica : shards[i].replicas) {
      if (!names.insert(replica.name).second)
        return reader.Fail(StrCat("has two replicas named \"", replica.name, "\""));
      if (!addresses.insert(replica.address).second) {
        return reader.Fail(StrCat("has two replicas at ", replica.address));
      }
    }
  }
  if (next_slot != kSlotCount) {
    reader.Fail(
        StrCat("has shards up to slot ", static_cast<int64_t>(next_slot) - 1, ", the last one is ", kSlotCount - 1));
  }
}

absl::StatusOr<FileLock> TakeLock(const std::string& path, std::chrono::milliseconds wait_max) {
  const auto end = std::chrono::steady_clock::now() + wait_max;
  while (true) {
    RETRO_ASSIGN_OR_RETURN(std::optional<FileLock> lock, FileLock::TryTake(path));
    if (lock.has_value()) return *std::move(lock);
    if (std::chrono::steady_clock::now() >= end) {
      return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
                   StrCat("the cluster file was not changed: another process has held ", path, " for ",
                          wait_max.count(), " ms; does it stand still? (fuser names it)"));
    }
    std::this_thread::sleep_for(kLockPause);
  }
}

}  // namespace

bool ShardConfig::IsInSync(std::string_view replica) const {
  return std::find(in_sync.begin(), in_sync.end(), replica) != in_sync.end();
}

const ReplicaConfig* ShardConfig::Find(std::string_view replica) const {
  const auto it = std::find_if(replicas.begin(), replicas.end(), [&](const auto& r) { return r.name == replica; });
  return it == replicas.end() ? nullptr : &*it;
}

std::string ClusterConfig::Fingerprint() const { return Sha256Bytes(FormatClusterFile(*this)); }

absl::StatusOr<ClusterConfig> ParseClusterFile(std::string_view text, const std::string& path) {
  const json file = json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  const std::string place = StrCat("the cluster file ", path, ":");
  absl::Status error;
  Reader reader(file, place, error);
  reader.Keys({"version", "cluster", "store_id", "min_in_sync", "shards"});
  ClusterConfig config;
  config.version = reader.Number("version", 1, UINT64_MAX - 1);
  config.cluster = reader.Text("cluster", kNameBytesMax);
  const std::string id = reader.Text("store_id", kStoreIdDigits);
  const bool is_hex = id.size() == kStoreIdDigits && id.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!is_hex) reader.Fail("\"store_id\" is not 32 hexadecimal digits in lower case");
  config.store_id = is_hex ? absl::HexStringToBytes(id) : "";
  if (reader.Has("min_in_sync")) {
    config.min_in_sync = static_cast<uint32_t>(reader.Number("min_in_sync", 1, kReplicasMax));
  }
  const json& shards = reader.Array("shards");
  for (size_t i = 0; i < shards.size() && i < kSlotCount; ++i) {
    config.shards.push_back(ReadShard(shards[i], StrCat(place, " shards[", i, "]"), error));
  }
  CheckShards(reader, config.shards);
  if (!error.ok()) return error;
  return config;
}

std::string FormatClusterFile(const ClusterConfig& config) {
  nlohmann::ordered_json file = {{"version", config.version},
                                 {"cluster", config.cluster},
                                 {"store_id", HexEncode(config.store_id)},
                                 {"min_in_sync", config.min_in_sync},
                                 {"shards", nlohmann::ordered_json::array()}};
  for (const ShardConfig& shard : config.shards) {
    nlohmann::ordered_json entry = {{"slots", {shard.first_slot, shard.last_slot}}, {"epoch", shard.epoch}};
    if (shard.position.has_value()) entry["position"] = {shard.position->first, shard.position->second};
    entry["primary"] = shard.primary;
    if (shard.epoch != kFoundingEpoch) entry["in_sync"] = shard.in_sync;
    if (shard.read_only) entry["read_only"] = true;  // else it is not there: an older version does not know the key
    entry["replicas"] = nlohmann::ordered_json::array();
    for (const ReplicaConfig& replica : shard.replicas) {
      entry["replicas"].push_back({{"name", replica.name}, {"address", replica.address}});
    }
    file["shards"].push_back(std::move(entry));
  }
  return file.dump(kIndent) + "\n";
}

absl::StatusOr<ClusterConfig> ReadClusterFile(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseClusterFile(text, path);
}

absl::StatusOr<ClusterConfig> UpdateClusterFile(const std::string& path,
                                                const std::function<absl::Status(ClusterConfig&)>& change,
                                                std::chrono::milliseconds wait_max) {
  RETRO_ASSIGN_OR_RETURN(const FileLock lock, TakeLock(path + ".lock", wait_max));
  RETRO_ASSIGN_OR_RETURN(ClusterConfig config, ReadClusterFile(path));
  RETRO_RETURN_IF_ERROR(change(config));
  ++config.version;
  RETRO_RETURN_IF_ERROR(WriteFileAtomically(path, FormatClusterFile(config)));
  return config;
}

}  // namespace retro
