// One document on its way in: checked, cut into chunks, embedded, made one durable change of its shard.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/document/protos.h"
#include "common/tokenizer/tokenizer.h"
#include "retriever_service/ingest/ingest_budget.h"
#include "retriever_service/query/embedding.h"
#include "retriever_service/query/shard_map.h"
#include "retro/retriever/v1/retriever.pb.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// What became of a document, and where its shard stands.
struct WriteResult {
  pb::DocumentResult document;
  absl::Status status;  // as document.error; OK for written and unchanged
  uint32_t shard = 0;
  shardpb::Position position;  // covers the write; unset if it failed
};

WriteResult FailedWrite(const std::string& document_id, const absl::Status& status);

// Any thread; blocks while the document is embedded and made durable.
class DocumentWriter {
 public:
  // All must outlive this. `budget` is of what documents are while they are cut, embedded and written, which may be 40
  // times their text: whatever comes beyond it waits.
  DocumentWriter(ShardMap& shards, Embedding& embedding, const Tokenizer& tokenizer, IngestBudget& budget)
      : shards_(shards), embedding_(embedding), tokenizer_(tokenizer), budget_(budget) {}

  // `field` is the write's path in the request, for errors: "write", "writes[3]".
  WriteResult Write(const std::string& collection, pb::DocumentWrite write, const std::string& field,
                    const CallContext& context);

  // The chunks that a document of the text would have.
  absl::StatusOr<pb::CutChunksResponse> Cut(const pb::CutChunksRequest& request, const CallContext& context) const;

 private:
  static constexpr size_t kCutsMax = 16;
  static constexpr size_t kCutBytesMax = size_t{64} << 20;

  // FAILED_PRECONDITION (TOKENIZER_MISMATCH) if the collection's documents are cut by another.
  absl::Status CheckCuts(const pb::CollectionSpec& spec) const;
  // With its text: chunks, and their vectors. `room` is what the change then needs.
  absl::Status AddContent(const pb::CollectionSpec& spec, const pb::DocumentWrite& write, const std::string& field,
                          const CallContext& context, shardpb::DocumentChange& change, IngestRoom& room) const;
  absl::Status AddGivenVectors(const pb::CollectionSpec& spec, const pb::DocumentWrite& write, const std::string& field,
                               shardpb::DocumentChange& change) const;

  ShardMap& shards_;
  Embedding& embedding_;
  const Tokenizer& tokenizer_;
  IngestBudget& budget_;
  // Of texts that are only cut, by callers who may not write: they hold up no document, nor each other for long.
  mutable IngestBudget cut_budget_{kCutsMax, kCutBytesMax};
};

}  // namespace retro
