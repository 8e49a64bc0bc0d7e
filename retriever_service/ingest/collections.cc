#include "retriever_service/ingest/collections.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/query/consistency_token.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {
namespace {

// Whether to repeat the call would help.
bool IsFinal(const absl::Status& status) {
  const auto reason = ReasonOf(status);
  return reason == Reason::kCollectionExists || reason == Reason::kInvalidField;
}

}  // namespace

absl::StatusOr<pb::CreateCollectionResponse> Collections::Create(const pb::CreateCollectionRequest& request,
                                                                 const CallContext& context) {
  shardpb::CreateCollectionRequest shard_request;
  RETRO_ASSIGN_OR_RETURN(*shard_request.mutable_spec(), Complete(request.spec()));
  std::vector<shardpb::CreateCollectionResponse> made(shards_.size());
  const auto statuses = shards_.ChangeAll([&](uint32_t number, Shard& shard) -> absl::Status {
    RETRO_ASSIGN_OR_RETURN(made[number], shard.CreateCollection(shard_request, context));
    return absl::OkStatus();
  });
  RETRO_RETURN_IF_ERROR(Together(statuses));
  shardpb::ConsistencyToken token;
  token.set_store_id(shards_.store_id());
  for (uint32_t i = 0; i < shards_.size(); ++i) Cover(token, i, made[i].position());
  pb::CreateCollectionResponse response;
  *response.mutable_spec() = shard_request.spec();
  response.set_consistency_token(EncodeConsistencyToken(token));
  return response;
}

absl::StatusOr<pb::CollectionSpec> Collections::Complete(const pb::CollectionSpec& asked) {
  pb::CollectionSpec spec = own_;
  spec.set_name(asked.name());
  RETRO_ASSIGN_OR_RETURN(const pb::CollectionSpec default_spec, shards_.Collection(""));
  spec.set_chunk_size(default_spec.chunk_size());
  const bool embedder_given = !asked.embedder_fingerprint().empty();
  if ((embedder_given && asked.embedder_fingerprint() != spec.embedder_fingerprint()) ||
      (asked.dimension() != 0 && asked.dimension() != spec.dimension())) {
    return Error(
        absl::StatusCode::kFailedPrecondition, Reason::kEmbedderMismatch,
        StrCat("this server has another embedder, of ", spec.dimension(),
               " numbers a vector: leave embedder_fingerprint and dimension out, or ask a server that has it"));
  }
  const bool tokenizer_given = !asked.tokenizer_fingerprint().empty();
  if ((tokenizer_given && asked.tokenizer_fingerprint() != spec.tokenizer_fingerprint()) ||
      (asked.chunk_size() != 0 && asked.chunk_size() != spec.chunk_size())) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kTokenizerMismatch,
                 StrCat("this server cuts with another tokenizer or into other chunks, of ", spec.chunk_size(),
                        " tokens: leave tokenizer_fingerprint and chunk_size out, or ask a server that has them"));
  }
  return spec;
}

absl::StatusOr<pb::DeleteCollectionResponse> Collections::Delete(const pb::DeleteCollectionRequest& request,
                                                                 const CallContext& context) {
  shardpb::DropCollectionRequest shard_request;
  shard_request.set_name(request.name());
  std::vector<shardpb::DropCollectionResponse> dropped(shards_.size());
  const auto statuses = shards_.ChangeAll([&](uint32_t number, Shard& shard) -> absl::Status {
    RETRO_ASSIGN_OR_RETURN(dropped[number], shard.DropCollection(shard_request, context));
    return absl::OkStatus();
  });
  shards_.Forget(request.name());
  RETRO_RETURN_IF_ERROR(Together(statuses));
  if (std::none_of(dropped.begin(), dropped.end(), [](const auto& answer) { return answer.found(); })) {
    return Error(absl::StatusCode::kNotFound, Reason::kCollectionNotFound,
                 StrCat("there is no collection \"", request.name(), "\""));
  }
  shardpb::ConsistencyToken token;
  token.set_store_id(shards_.store_id());
  for (uint32_t i = 0; i < shards_.size(); ++i) Cover(token, i, dropped[i].position());
  pb::DeleteCollectionResponse response;
  response.set_consistency_token(EncodeConsistencyToken(token));
  return response;
}

absl::StatusOr<pb::ListCollectionsResponse> Collections::List(const CallContext& context) {
  std::vector<shardpb::GetShardInfoResponse> infos(shards_.size());
  const auto statuses = shards_.AskAll([&](uint32_t number, Shard& shard) -> absl::Status {
    RETRO_ASSIGN_OR_RETURN(infos[number], shard.GetShardInfo({}, context));
    return absl::OkStatus();
  });
  std::map<std::string, pb::CollectionSpec> collections;
  bool answered = false;
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    answered |= statuses[i].ok();
    for (const pb::CollectionSpec& spec : infos[i].collections()) collections.emplace(spec.name(), spec);
  }
  if (!answered) return statuses.front();
  pb::ListCollectionsResponse list;
  for (auto& [name, spec] : collections) list.add_collections()->Swap(&spec);
  return list;
}

absl::Status Collections::Together(const std::vector<absl::Status>& answers) {
  std::vector<bool> changed;
  changed.reserve(answers.size());
  for (const absl::Status& answer : answers) changed.push_back(answer.ok());
  const auto final = std::find_if(answers.begin(), answers.end(), IsFinal);
  const auto count = std::count(changed.begin(), changed.end(), true);
  if (final == answers.end()) return AnswerOfAll(answers, changed);
  if (count == 0) return *final;
  return Error(final->code(), *ReasonOf(*final),
               StrCat(MessageOf(*final), "; ", count, " of ", answers.size(),
                      " shards have it nevertheless: delete it before it is used"));
}

}  // namespace retro
