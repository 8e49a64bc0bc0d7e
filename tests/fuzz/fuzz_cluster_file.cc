// Any bytes as a cluster file: it is refused, or it is valid and survives being written and read again.
#include "retriever_service/cluster/cluster_file.h"
#include "tests/fuzz/fuzz.h"

namespace retro {

std::vector<std::string> FuzzSeeds() {
  return {R"({"version":7,"cluster":"retro","store_id":"00112233445566778899aabbccddeeff","min_in_sync":2,"shards":[)"
          R"({"slots":[0,99],"epoch":3,"primary":"a0","in_sync":["a0","a1"],"replicas":[{"name":"a0","address":"a:1"},)"
          R"({"name":"a1","address":"b:1"}]},)"
          R"({"slots":[100,4095],"epoch":1,"primary":"b0","replicas":[{"name":"b0","address":"c:1"}]}]})"};
}

void FuzzOne(std::string_view input) {
  const auto config = ParseClusterFile(input, "file");
  if (!config.ok())
    return Require(config.status().code() == absl::StatusCode::kInvalidArgument, "refused with another status");
  uint32_t next = 0;
  for (const ShardConfig& shard : config->shards) {
    Require(shard.first_slot == next && shard.first_slot <= shard.last_slot, "a slot is missing or there twice");
    Require(shard.Find(shard.primary) != nullptr, "a primary that is no replica");
    Require(shard.epoch == kFoundingEpoch || shard.IsInSync(shard.primary), "a primary that is not in sync");
    next = shard.last_slot + 1;
  }
  const auto again = ParseClusterFile(FormatClusterFile(*config), "file");
  Require(again.ok() && again->Fingerprint() == config->Fingerprint(), "not the same when read again");
}

}  // namespace retro
