#include "retriever_service/ingest/document_change.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "common/tokenizer/chunker.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

// Many chunks go to the embedder in parts, so that their vectors never stand in memory twice and queries get in
// between.
constexpr size_t kChunksPerEmbedding = 256;

}  // namespace

shardpb::DocumentChange MakeChange(pb::Document document) {
  shardpb::DocumentChange change;
  change.set_content_hash(ContentHash(document));
  change.set_text_hash(TextHash(document.text()));
  change.mutable_document()->Swap(&document);
  return change;
}

void AddChunks(const Tokenizer& tokenizer, uint32_t chunk_size, shardpb::DocumentChange& change) {
  for (const TextChunk& chunk : CutIntoChunks(tokenizer, change.document().text(), static_cast<int>(chunk_size))) {
    shardpb::ChunkContent& content = *change.add_chunks();
    content.set_end(chunk.end);
    content.mutable_token_ids()->Assign(chunk.tokens.begin(), chunk.tokens.end());
  }
}

absl::Status AddEmbeddedVectors(Embedding& embedding, const CallContext& context,
                                std::span<shardpb::DocumentChange* const> changes) {
  std::vector<EmbedInput> texts;
  std::vector<shardpb::ChunkContent*> chunks;
  for (shardpb::DocumentChange* const change : changes) {
    const std::string_view text = change->document().text();
    uint64_t begin = 0;
    for (shardpb::ChunkContent& chunk : *change->mutable_chunks()) {
      texts.push_back({text.substr(begin, chunk.end() - begin), TextKind::kPassage});
      chunks.push_back(&chunk);
      begin = chunk.end();
    }
  }
  for (size_t first = 0; first < chunks.size(); first += kChunksPerEmbedding) {
    const size_t count = std::min(chunks.size() - first, kChunksPerEmbedding);
    const auto begin = texts.begin() + static_cast<std::ptrdiff_t>(first);
    const std::vector<EmbedInput> part(begin, begin + static_cast<std::ptrdiff_t>(count));
    RETRO_ASSIGN_OR_RETURN(const EmbedReply reply, embedding.Embed(part, EmbedPriority::kIngest, context));
    for (size_t i = 0; i < count; ++i) chunks[first + i]->set_vector_fp16(ToHalf(embedding.VectorOf(reply, i)));
  }
  return absl::OkStatus();
}

absl::StatusOr<shardpb::DocumentChange> ReadChange(const Store& store, uint32_t collection,
                                                   const shardpb::DocumentRecord& record) {
  shardpb::DocumentChange change;
  *change.mutable_document() = record.document();
  change.set_content_hash(record.content_hash());
  change.set_text_hash(record.text_hash());
  std::vector<uint64_t> ids;
  ids.reserve(record.chunks().count());
  for (uint32_t i = 0; i < record.chunks().count(); ++i) {
    ids.push_back(ChunkIdAt(record.chunks().first_chunk_id(), i));
  }
  RETRO_ASSIGN_OR_RETURN(auto rows, store.ReadChunks(collection, ids, /*at=*/nullptr));
  RETRO_ASSIGN_OR_RETURN(auto vectors, store.ReadVectors(collection, ids, /*at=*/nullptr));
  std::string& text = *change.mutable_document()->mutable_text();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!rows[i].has_value()) {
      return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                   StrCat("the store in ", store.path(), " is damaged: chunk ", ids[i], " is missing"));
    }
    text += rows[i]->text();
    shardpb::ChunkContent& chunk = *change.add_chunks();
    chunk.set_end(text.size());
    chunk.mutable_token_ids()->Swap(rows[i]->mutable_token_ids());
    chunk.set_vector_fp16(std::move(vectors[i]));
  }
  return change;
}

}  // namespace retro
