// From hits of an index to neighbours: reads the chunks and their continuations from the store.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/document/protos.h"
#include "retriever_service/index/vector_index.h"
#include "retriever_service/store/store.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

// A chunk with what is wanted of it.
void FillChunk(uint64_t chunk_id, const shardpb::ChunkRecord& from, const pb::NeighbourFields& fields, pb::Chunk& to);

// One result a list of hits, in order; `fields` says what of each neighbour is wanted. Rows that lists close to each
// other hit are read once. Nothing if a row is gone: then its document was replaced and the log trimmed since the
// search, which must be made again. INVALID_ARGUMENT (of k) if the results would have more than `bytes_max`,
// RESOURCE_EXHAUSTED if the call may not hold so much.
absl::StatusOr<std::optional<std::vector<pb::QueryResult>>> FetchNeighbours(
    const Store& store, uint32_t collection, const std::vector<std::vector<IndexHit>>& hits,
    const pb::NeighbourFields& fields, size_t bytes_max, const CallContext& context);

}  // namespace retro
