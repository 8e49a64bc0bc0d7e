// One search: its queries made vectors, sent to every shard, the answers merged. Used by Router alone.
#pragma once

#include <chrono>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/document/protos.h"
#include "retriever_service/query/embedding.h"
#include "retriever_service/query/shard_map.h"
#include "retriever_service/query/waiting_reads.h"
#include "retro/retriever/v1/retriever.pb.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

class Search {
 public:
  Search(ShardMap& shards, Embedding& embedding, WaitingReads& waiting, const pb::SearchRequest& request,
         const CallContext& context)
      : shards_(shards), embedding_(embedding), waiting_(waiting), request_(request), context_(context) {}

  // Once.
  absl::StatusOr<pb::SearchResponse> Run(std::chrono::steady_clock::time_point arrival);

 private:
  // The request to every shard, but for its barrier.
  absl::Status MakeShardRequest(const pb::CollectionSpec& spec);
  absl::Status AddVectors(const pb::CollectionSpec& spec);
  absl::Status AskShards(const shardpb::ConsistencyToken& token);
  // Nearest first; of equal distances, the lower shard first.
  void Merge(uint32_t k);

  ShardMap& shards_;
  Embedding& embedding_;
  WaitingReads& waiting_;
  const pb::SearchRequest& request_;
  const CallContext& context_;
  shardpb::SearchRequest shard_request_;
  std::vector<shardpb::SearchResponse> answers_;  // one a shard
  std::vector<bool> answered_;
  pb::SearchResponse response_;
};

}  // namespace retro
