#include "retriever_service/shard/neighbour_fetch.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr size_t kRowsAtOnce = 4096;  // read together; the queries that want the last of them may make it more

bool HasContinuation(const IndexHit& hit) {
  return ChunkNumber(hit.document->first_chunk_id, hit.chunk_id) + 1 < hit.document->chunk_count;
}

uint64_t ContinuationOf(const IndexHit& hit) { return ChunkIdAt(hit.chunk_id, 1); }

absl::Status TooLarge(size_t queries, size_t of_queries, size_t bytes_max) {
  return FieldError("k", StrCat("the neighbours of ", queries, " of ", of_queries, " queries have more than the ",
                                bytes_max, " bytes of one reply: take a smaller k, fewer queries or fewer fields"));
}

// The rows of a set of chunks.
class Rows {
 public:
  void Want(const IndexHit& hit) {
    Want(hit.chunk_id);
    if (HasContinuation(hit)) Want(ContinuationOf(hit));
  }
  size_t size() const { return ids_.size(); }
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
  void Want(uint64_t chunk_id) {
    if (places_.try_emplace(chunk_id, ids_.size()).second) ids_.push_back(chunk_id);
  }

  std::vector<uint64_t> ids_;
  absl::flat_hash_map<uint64_t, size_t> places_;
  std::vector<std::optional<shardpb::ChunkRecord>> records_;
};

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
    const pb::NeighbourFields& fields, size_t bytes_max, const CallContext& context) {
  std::vector<pb::QueryResult> results(hits.size());
  size_t bytes = 0;
  for (size_t begin = 0; begin < hits.size();) {
    Rows rows;
    size_t end = begin;
    do {
      for (const IndexHit& hit : hits[end]) rows.Want(hit);
    } while (++end < hits.size() && rows.size() < kRowsAtOnce);
    RETRO_RETURN_IF_ERROR(rows.Read(store, collection));
    if (!rows.complete()) return std::nullopt;
    for (; begin < end; ++begin) {
      for (const IndexHit& hit : hits[begin]) {
        pb::Neighbour& neighbour = *results[begin].add_neighbours();
        FillNeighbour(hit, rows, fields, store.identity().shard, neighbour);
        const size_t size = neighbour.ByteSizeLong();
        RETRO_RETURN_IF_ERROR(context.Hold(size));
        bytes += size;
      }
      if (bytes > bytes_max) return TooLarge(begin + 1, hits.size(), bytes_max);
    }
  }
  return results;
}

}  // namespace retro
