#include "retriever_service/shard/neighbour_fetch.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/base/status_macros.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

// The rows of a set of chunks.
class Rows {
 public:
  void Want(uint64_t chunk_id) {
    if (places_.try_emplace(chunk_id, ids_.size()).second) ids_.push_back(chunk_id);
  }
  absl::Status Read(const Store& store, uint32_t collection) {
    RETRO_ASSIGN_OR_RETURN(records_, store.ReadChunks(collection, ids_, /*at=*/nullptr));
    return absl::OkStatus();
  }
  bool complete() const {
    for (const auto& record : records_) {
      if (!record.has_value()) return false;
    }
    return true;
  }
  const shardpb::ChunkRecord& at(uint64_t chunk_id) const { return *records_[places_.at(chunk_id)]; }

 private:
  std::vector<uint64_t> ids_;
  absl::flat_hash_map<uint64_t, size_t> places_;
  std::vector<std::optional<shardpb::ChunkRecord>> records_;
};

bool HasContinuation(const IndexHit& hit) {
  return ChunkNumber(hit.document->first_chunk_id, hit.chunk_id) + 1 < hit.document->chunk_count;
}

uint64_t ContinuationOf(const IndexHit& hit) { return ChunkIdAt(hit.chunk_id, 1); }

void FillNeighbour(const IndexHit& hit, const Rows& rows, const pb::NeighbourFields& fields, uint32_t shard,
                   pb::Neighbour& to) {
  FillChunk(hit.chunk_id, rows.at(hit.chunk_id), fields, *to.mutable_chunk());
  if (HasContinuation(hit)) {
    FillChunk(ContinuationOf(hit), rows.at(ContinuationOf(hit)), fields, *to.mutable_continuation());
  }
  to.set_distance(hit.distance);
  to.set_document_id(hit.document->id);
  to.set_title(hit.document->title);
  to.set_source(hit.document->source);
  if (!fields.has_metadata() || fields.metadata()) CopyMetadata(*hit.document, to.mutable_metadata());
  to.set_content_hash(hit.document->content_hash);
  to.set_shard(shard);
}

}  // namespace

void FillChunk(uint64_t chunk_id, const shardpb::ChunkRecord& from, const pb::NeighbourFields& fields, pb::Chunk& to) {
  to.set_chunk_id(chunk_id);
  to.set_chunk_number(from.chunk_number());
  to.mutable_byte_range()->set_begin(from.begin());
  to.mutable_byte_range()->set_end(from.begin() + from.text().size());
  if (!fields.has_text() || fields.text()) to.set_text(from.text());
  if (!fields.has_token_ids() || fields.token_ids()) *to.mutable_token_ids() = from.token_ids();
}

absl::StatusOr<std::optional<std::vector<pb::QueryResult>>> FetchNeighbours(
    const Store& store, uint32_t collection, const std::vector<std::vector<IndexHit>>& hits,
    const pb::NeighbourFields& fields) {
  Rows rows;
  for (const auto& list : hits) {
    for (const IndexHit& hit : list) {
      rows.Want(hit.chunk_id);
      if (HasContinuation(hit)) rows.Want(ContinuationOf(hit));
    }
  }
  RETRO_RETURN_IF_ERROR(rows.Read(store, collection));
  if (!rows.complete()) return std::nullopt;
  std::vector<pb::QueryResult> results(hits.size());
  for (size_t i = 0; i < hits.size(); ++i) {
    for (const IndexHit& hit : hits[i]) {
      FillNeighbour(hit, rows, fields, store.identity().shard, *results[i].add_neighbours());
    }
  }
  return results;
}

}  // namespace retro
