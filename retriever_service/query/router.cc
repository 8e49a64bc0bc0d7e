#include "retriever_service/query/router.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/query/consistency_token.h"
#include "retriever_service/query/limits.h"
#include "retriever_service/query/search.h"

namespace retro {
namespace {

using google::protobuf::util::TimeUtil;

// Texts that are embedded at once: more would wait until the embedder's queue is nearly empty, and have no turn beside
// others who keep it full.
constexpr int kTextsPerEmbedding = 256;

// What a shard must have seen before it answers a caller with this token; nothing if the token says nothing of it.
absl::StatusOr<std::optional<shardpb::ReadBarrier>> BarrierFor(const std::string& token_bytes, const ShardMap& shards,
                                                               uint32_t shard) {
  RETRO_ASSIGN_OR_RETURN(const shardpb::ConsistencyToken token, DecodeConsistencyToken(token_bytes, shards.store_id()));
  const auto position = PositionOn(token, shard);
  if (!position.has_value()) return std::nullopt;
  shardpb::ReadBarrier barrier;
  *barrier.mutable_position() = *position;
  *barrier.mutable_max_wait() = TimeUtil::MillisecondsToDuration(kMaxWaitDefault.count());
  return barrier;
}

std::string MakePageToken(const shardpb::ListCursor& cursor) {
  return absl::WebSafeBase64Escape(cursor.SerializeAsString());
}

absl::StatusOr<std::optional<shardpb::ListCursor>> ParsePageToken(const std::string& page_token, uint32_t shards) {
  if (page_token.empty()) return std::nullopt;
  shardpb::ListCursor cursor;
  std::string bytes;
  if (!absl::WebSafeBase64Unescape(page_token, &bytes) || !cursor.ParseFromString(bytes) || cursor.shard() >= shards) {
    return FieldError("page_token",
                      "is none of ours; send the last reply's next_page_token, or nothing for the first page");
  }
  return cursor;
}

}  // namespace

absl::StatusOr<pb::SearchResponse> Router::Search(const pb::SearchRequest& request, const CallContext& context,
                                                  std::chrono::steady_clock::time_point arrival) {
  return retro::Search(shards_, embedding_, waiting_, request, context).Run(arrival);
}

absl::StatusOr<pb::EmbedResponse> Router::Embed(const pb::EmbedRequest& request, const CallContext& context) {
  RETRO_ASSIGN_OR_RETURN(const pb::CollectionSpec spec, shards_.CollectionNow(request.collection(), context));
  RETRO_RETURN_IF_ERROR(embedding_.CheckServes(spec));
  // Many texts are bulk work, and searches go first.
  const auto priority = request.texts_size() > kEmbedTextsUrgentMax ? EmbedPriority::kIngest : EmbedPriority::kQuery;
  pb::EmbedResponse response;
  response.set_embedder_fingerprint(spec.embedder_fingerprint());
  while (response.vectors_size() < request.texts_size()) {
    std::vector<EmbedInput> texts;
    const int end = std::min(request.texts_size(), response.vectors_size() + kTextsPerEmbedding);
    for (int i = response.vectors_size(); i < end; ++i) {
      texts.push_back({request.texts(i), ToTextKind(request.text_kind())});
    }
    RETRO_ASSIGN_OR_RETURN(const EmbedReply reply, embedding_.Embed(texts, priority, context));
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto vector = embedding_.VectorOf(reply, i);
      response.add_vectors()->mutable_values()->Assign(vector.begin(), vector.end());
    }
  }
  return response;
}

absl::StatusOr<pb::DeleteDocumentsResponse> Router::DeleteDocuments(const pb::DeleteDocumentsRequest& request,
                                                                    const CallContext& context) {
  RETRO_RETURN_IF_ERROR(shards_.Collection(request.collection()).status());
  std::vector<shardpb::DeleteRequest> requests(shards_.size());
  for (auto& shard_request : requests) {
    shard_request.set_collection(request.collection());
    shard_request.set_dry_run(request.dry_run());
    if (request.has_filter()) *shard_request.mutable_filter() = request.filter();
  }
  for (const std::string& id : request.document_ids()) requests[shards_.ShardOfDocument(id)].add_document_ids(id);

  std::vector<shardpb::DeleteResponse> answers(shards_.size());
  const auto statuses = shards_.ChangeAll([&](uint32_t number, Shard& shard) -> absl::Status {
    if (!request.has_filter() && requests[number].document_ids().empty()) return absl::OkStatus();
    RETRO_ASSIGN_OR_RETURN(answers[number], shard.Delete(requests[number], context));
    return absl::OkStatus();
  });
  pb::DeleteDocumentsResponse response;
  shardpb::ConsistencyToken token;
  token.set_store_id(shards_.store_id());
  std::vector<bool> changed(shards_.size());
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    changed[i] = answers[i].deleted_count() > 0 && !request.dry_run();
    if (!statuses[i].ok()) shards_.Heed(statuses[i], request.collection()).IgnoreError();
  }
  RETRO_RETURN_IF_ERROR(AnswerOfAll(statuses, changed));
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    response.set_deleted_count(response.deleted_count() + answers[i].deleted_count());
    if (answers[i].has_position()) Cover(token, i, answers[i].position());
  }
  response.set_consistency_token(EncodeConsistencyToken(token));
  return response;
}

absl::StatusOr<pb::GetDocumentResponse> Router::GetDocument(const pb::GetDocumentRequest& request,
                                                            const CallContext& context) {
  const uint32_t number = shards_.ShardOfDocument(request.document_id());
  RETRO_ASSIGN_OR_RETURN(auto barrier, BarrierFor(request.consistency_token(), shards_, number));
  shardpb::GetDocumentRequest shard_request;
  shard_request.set_collection(request.collection());
  shard_request.set_document_id(request.document_id());
  if (barrier.has_value()) *shard_request.mutable_barrier() = *std::move(barrier);
  WaitingPlace place(waiting_, context.key());
  RETRO_ASSIGN_OR_RETURN(
      shardpb::GetDocumentResponse answer,
      ReadBehindBarrier(shards_.shard(number), &Shard::GetDocument, std::move(shard_request), place, context));
  pb::GetDocumentResponse response;
  response.mutable_document()->Swap(answer.mutable_document());
  response.mutable_info()->Swap(answer.mutable_info());
  response.mutable_info()->set_shard(number);
  return response;
}

absl::StatusOr<pb::GetChunksResponse> Router::GetChunks(const pb::GetChunksRequest& request,
                                                        const CallContext& context) {
  const uint32_t number = shards_.ShardOfDocument(request.document_id());
  RETRO_ASSIGN_OR_RETURN(auto barrier, BarrierFor(request.consistency_token(), shards_, number));
  shardpb::GetChunksRequest shard_request;
  shard_request.set_collection(request.collection());
  shard_request.set_document_id(request.document_id());
  shard_request.set_first_chunk(request.first_chunk());
  shard_request.set_max_chunks(request.has_max_chunks() ? request.max_chunks() : kChunksMax);
  shard_request.set_include_vectors(request.include_vectors());
  if (barrier.has_value()) *shard_request.mutable_barrier() = *std::move(barrier);
  WaitingPlace place(waiting_, context.key());
  RETRO_ASSIGN_OR_RETURN(
      shardpb::GetChunksResponse answer,
      ReadBehindBarrier(shards_.shard(number), &Shard::GetChunks, std::move(shard_request), place, context));
  pb::GetChunksResponse response;
  response.mutable_chunks()->Swap(answer.mutable_chunks());
  response.mutable_vectors()->Swap(answer.mutable_vectors());
  response.set_chunk_count(answer.chunk_count());
  return response;
}

absl::StatusOr<pb::ListDocumentsResponse> Router::ListDocuments(const pb::ListDocumentsRequest& request,
                                                                const CallContext& context) {
  RETRO_ASSIGN_OR_RETURN(std::optional<shardpb::ListCursor> cursor,
                         ParsePageToken(request.page_token(), shards_.size()));
  const uint32_t page_size = request.has_page_size() ? request.page_size() : kPageSizeDefault;
  pb::ListDocumentsResponse response;
  // Slots are dealt out in order, so shard after shard is also slot after slot.
  for (uint32_t number = cursor.has_value() ? cursor->shard() : 0; number < shards_.size(); ++number) {
    shardpb::ListDocumentsRequest shard_request;
    shard_request.set_collection(request.collection());
    shard_request.set_page_size(page_size - static_cast<uint32_t>(response.documents_size()));
    if (cursor.has_value()) *shard_request.mutable_after() = *cursor;
    cursor.reset();
    if (request.has_filter()) *shard_request.mutable_filter() = request.filter();
    RETRO_ASSIGN_OR_RETURN(shardpb::ListDocumentsResponse answer,
                           shards_.shard(number).ListDocuments(shard_request, context));
    for (auto& document : *answer.mutable_documents()) {
      document.mutable_info()->set_shard(number);
      response.add_documents()->Swap(&document);
    }
    if (answer.has_next()) {
      answer.mutable_next()->set_shard(number);
      response.set_next_page_token(MakePageToken(answer.next()));
      return response;
    }
    if (response.documents_size() == static_cast<int>(page_size) && number + 1 < shards_.size()) {
      shardpb::ListCursor next;
      next.set_shard(number + 1);
      response.set_next_page_token(MakePageToken(next));
      return response;
    }
  }
  return response;
}

absl::StatusOr<pb::StatsResponse> Router::Stats(const CallContext& context) {
  std::vector<shardpb::StatsResponse> answers(shards_.size());
  const auto statuses = shards_.AskAll([&](uint32_t number, Shard& shard) -> absl::Status {
    RETRO_ASSIGN_OR_RETURN(answers[number], shard.Stats({}, context));
    return absl::OkStatus();
  });
  pb::StatsResponse response;
  response.mutable_coverage()->set_shards_asked(shards_.size());
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    if (!statuses[i].ok()) continue;
    response.mutable_coverage()->set_shards_answered(response.coverage().shards_answered() + 1);
    response.add_shards()->Swap(answers[i].mutable_stats());
  }
  return response.shards().empty() ? absl::StatusOr<pb::StatsResponse>(statuses.front()) : response;
}

}  // namespace retro
