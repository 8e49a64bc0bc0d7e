// What a document becomes on its way into a shard: hashes, chunks, vectors. One place for all ways in: documents that
// are sent, snapshots that are restored, stores that are built.
#pragma once

#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/document/protos.h"
#include "common/tokenizer/tokenizer.h"
#include "retriever_service/query/embedding.h"
#include "retriever_service/store/store.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// With its hashes, still without chunks.
shardpb::DocumentChange MakeChange(pb::Document document);

// Cuts the change's text into chunks, still without vectors.
void AddChunks(const Tokenizer& tokenizer, uint32_t chunk_size, shardpb::DocumentChange& change);

// The vectors of all chunks of all changes, which are embedded in the order in which they stand.
absl::Status AddEmbeddedVectors(Embedding& embedding, const CallContext& context,
                                std::span<shardpb::DocumentChange* const> changes);

// The change that would write a stored document as it is: text, chunks and vectors. DATA_LOSS (STORE_DAMAGED) if a row
// of it is missing.
absl::StatusOr<shardpb::DocumentChange> ReadChange(const Store& store, uint32_t collection,
                                                   const shardpb::DocumentRecord& record);

}  // namespace retro
