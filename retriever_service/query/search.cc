#include "retriever_service/query/search.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/query/consistency_token.h"
#include "retriever_service/query/limits.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;
using google::protobuf::Duration;
using google::protobuf::util::TimeUtil;

Duration ToProto(Clock::duration duration) {
  return TimeUtil::NanosecondsToDuration(std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count());
}

Duration SecondsToProto(double seconds) { return TimeUtil::NanosecondsToDuration(static_cast<int64_t>(seconds * 1e9)); }

void KeepLonger(const Duration& candidate, Duration& longest) {
  if (longest < candidate) longest = candidate;
}

}  // namespace

absl::StatusOr<pb::SearchResponse> Search::Run(Clock::time_point arrival) {
  auto& times = *response_.mutable_times();
  *times.mutable_queue() = ToProto(Clock::now() - arrival);
  RETRO_ASSIGN_OR_RETURN(shardpb::ConsistencyToken token,
                         DecodeConsistencyToken(request_.consistency_token(), shards_.store_id()));
  RETRO_ASSIGN_OR_RETURN(const pb::CollectionSpec spec, shards_.Collection(request_.collection()));
  RETRO_RETURN_IF_ERROR(MakeShardRequest(spec));
  RETRO_RETURN_IF_ERROR(AskShards(token));

  const auto merge_start = Clock::now();
  Merge(shard_request_.k());
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    if (!answered_[i]) continue;
    Cover(token, i, answers_[i].position());
    KeepLonger(answers_[i].search_time(), *times.mutable_search());
    KeepLonger(answers_[i].fetch_time(), *times.mutable_fetch());
  }
  response_.set_consistency_token(EncodeConsistencyToken(token));
  *times.mutable_merge() = ToProto(Clock::now() - merge_start);
  return std::move(response_);
}

absl::Status Search::MakeShardRequest(const pb::CollectionSpec& spec) {
  shard_request_.set_collection(request_.collection());
  shard_request_.set_embedder_fingerprint(spec.embedder_fingerprint());
  shard_request_.set_k(request_.has_k() ? request_.k() : kNeighboursDefault);
  if (request_.has_effort()) {
    *shard_request_.mutable_effort() = request_.effort();
  } else {
    shard_request_.mutable_effort()->set_level(kEffortDefault);
  }
  if (request_.has_max_distance()) shard_request_.set_max_distance(request_.max_distance());
  if (request_.has_filter()) *shard_request_.mutable_filter() = request_.filter();
  if (request_.has_max_chunks_per_document())
    shard_request_.set_max_chunks_per_document(request_.max_chunks_per_document());
  *shard_request_.mutable_fields() = request_.fields();
  *shard_request_.mutable_exclude_document_ids() = request_.exclude_document_ids();
  for (const pb::Query& query : request_.queries()) {
    *shard_request_.add_queries()->mutable_exclude_document_ids() = query.exclude_document_ids();
  }
  return AddVectors(spec);
}

absl::Status Search::AddVectors(const pb::CollectionSpec& spec) {
  std::vector<EmbedInput> texts;
  std::vector<int> places;
  for (int i = 0; i < request_.queries_size(); ++i) {
    const pb::Query& query = request_.queries(i);
    if (query.has_text()) {
      texts.push_back({query.text(), ToTextKind(query.text_kind())});
      places.push_back(i);
      continue;
    }
    const std::string field = StrCat("queries[", i, "]");
    if (query.embedder_fingerprint() != spec.embedder_fingerprint()) {
      return Error(absl::StatusCode::kFailedPrecondition, Reason::kEmbedderMismatch,
                   field +
                       ".embedder_fingerprint: the vector is of another embedder than the collection's; embed it with "
                       "that one (see GetInfo)");
    }
    if (query.vector().values_size() != static_cast<int>(spec.dimension())) {
      return FieldError(field + ".vector", StrCat("has ", query.vector().values_size(),
                                                  " numbers, the collection's vectors have ", spec.dimension()));
    }
    *shard_request_.mutable_queries(i)->mutable_vector() = query.vector();
  }
  if (texts.empty()) return absl::OkStatus();

  RETRO_RETURN_IF_ERROR(embedding_.CheckServes(spec));
  RETRO_ASSIGN_OR_RETURN(const EmbedReply reply, embedding_.Embed(texts, EmbedPriority::kQuery, context_));
  auto& times = *response_.mutable_times();
  *times.mutable_queue() = times.queue() + SecondsToProto(reply.queue_seconds);
  *times.mutable_embed() = SecondsToProto(reply.embed_seconds);
  for (size_t i = 0; i < places.size(); ++i) {
    const auto vector = embedding_.VectorOf(reply, i);
    shard_request_.mutable_queries(places[i])->mutable_vector()->mutable_values()->Assign(vector.begin(), vector.end());
  }
  return absl::OkStatus();
}

absl::Status Search::AskShards(const shardpb::ConsistencyToken& token) {
  // One request for all, and a copy for each shard that has to have reached something.
  const size_t requests = 1 + std::min(static_cast<uint32_t>(token.positions_size()), shards_.size());
  RETRO_RETURN_IF_ERROR(context_.Hold(requests * shard_request_.SpaceUsedLong()));
  answers_.resize(shards_.size());
  WaitingPlace place(waiting_, context_.key());
  const std::vector<absl::Status> statuses = shards_.AskAll([&](uint32_t number, Shard& shard) -> absl::Status {
    const auto position = PositionOn(token, number);
    absl::StatusOr<shardpb::SearchResponse> answer;
    if (position.has_value()) {
      shardpb::SearchRequest request = shard_request_;
      *request.mutable_barrier()->mutable_position() = *position;
      *request.mutable_barrier()->mutable_max_wait() =
          request_.has_max_wait() ? request_.max_wait() : TimeUtil::MillisecondsToDuration(kMaxWaitDefault.count());
      answer = ReadBehindBarrier(shard, &Shard::Search, std::move(request), place, context_);
    } else {
      answer = shard.Search(shard_request_, context_);
    }
    if (!answer.ok()) return shards_.Heed(answer.status(), request_.collection());
    answers_[number] = *std::move(answer);
    return absl::OkStatus();
  });
  uint32_t answered = 0;
  for (const absl::Status& status : statuses) {
    const bool silent =
        status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kDeadlineExceeded;
    const bool may_be_missing = request_.allow_partial() && silent;
    if (!status.ok() && !may_be_missing) return status;
    answered_.push_back(status.ok());
    answered += status.ok() ? 1 : 0;
  }
  if (answered == 0) return statuses.front();
  response_.mutable_coverage()->set_shards_answered(answered);
  response_.mutable_coverage()->set_shards_asked(shards_.size());
  return absl::OkStatus();
}

void Search::Merge(uint32_t k) {
  bool first = true;
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    if (!answered_[i]) continue;
    const uint64_t generation = answers_[i].index_generation();
    response_.set_index_generation(first ? generation : std::min(response_.index_generation(), generation));
    first = false;
  }
  if (shards_.size() == 1) {
    response_.mutable_results()->Swap(answers_[0].mutable_results());
    return;
  }
  for (int q = 0; q < request_.queries_size(); ++q) {
    std::vector<pb::Neighbour*> found;
    for (uint32_t i = 0; i < shards_.size(); ++i) {
      if (!answered_[i]) continue;
      for (pb::Neighbour& neighbour : *answers_[i].mutable_results(q)->mutable_neighbours()) {
        neighbour.set_shard(i);
        found.push_back(&neighbour);
      }
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const auto* a, const auto* b) { return a->distance() < b->distance(); });
    auto* result = response_.add_results();
    for (size_t n = 0; n < found.size() && n < k; ++n) result->add_neighbours()->Swap(found[n]);
  }
}

}  // namespace retro
