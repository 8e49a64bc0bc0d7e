#include "retriever_service/ingest/document_writer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/document_limits.h"
#include "common/document/half.h"
#include "common/document/item_error.h"
#include "common/tokenizer/chunker.h"
#include "retriever_service/ingest/document_change.h"

namespace retro {
namespace {

pb::WriteOutcome Outcome(shardpb::ChangeOutcome outcome) {
  switch (outcome) {
    case shardpb::CHANGE_OUTCOME_CREATED:
      return pb::WRITE_OUTCOME_CREATED;
    case shardpb::CHANGE_OUTCOME_REPLACED:
      return pb::WRITE_OUTCOME_REPLACED;
    case shardpb::CHANGE_OUTCOME_UNCHANGED:
      return pb::WRITE_OUTCOME_UNCHANGED;
    default:
      return pb::WRITE_OUTCOME_UNSPECIFIED;
  }
}

// What a chunk takes beside itself once it is embedded: its vector, and its place among those that are.
size_t EmbeddedChunkBytes(const pb::CollectionSpec& spec) {
  constexpr size_t kPlaceBytes = 64;
  return spec.dimension() * kHalfBytes + kPlaceBytes;
}

// The most that a text takes if each of its bytes is a token, of which a chunk may lack three (see chunker.h): while it
// is cut, with its tokens in a vector that has grown and its chunks as they are cut and as they are sent; or embedded.
size_t CutBytesMax(size_t text_bytes, const pb::CollectionSpec& spec) {
  constexpr size_t kChunkBytes = 192;  // of both, without tokens and vector
  constexpr uint32_t kLackingMax = 3;
  const size_t chunks = text_bytes / (std::max(spec.chunk_size(), kLackingMax + 1) - kLackingMax) + 1;
  const size_t cut = text_bytes * (2 * sizeof(Token) + 2 * sizeof(TokenId));
  const size_t embedded = text_bytes * sizeof(TokenId) + chunks * EmbeddedChunkBytes(spec);
  return text_bytes + chunks * kChunkBytes + std::max(cut, embedded);
}

// The answer to the one change of `request`.
absl::StatusOr<shardpb::WriteResponse> Send(Shard& shard, const shardpb::WriteRequest& request,
                                            const CallContext& context) {
  RETRO_ASSIGN_OR_RETURN(shardpb::WriteResponse response, shard.Write(request, context));
  if (response.results_size() != 1)
    return absl::InternalError(StrCat("a shard answered one change with ", response.results_size()));
  return response;
}

}  // namespace

WriteResult FailedWrite(const std::string& document_id, const absl::Status& status) {
  WriteResult result;
  result.document.set_document_id(document_id);
  *result.document.mutable_error() = ToItemError(status);
  result.status = status;
  return result;
}

WriteResult DocumentWriter::Write(const std::string& collection, pb::DocumentWrite write, const std::string& field,
                                  const CallContext& context) {
  const std::string id = write.document().id();
  absl::Status status = context.Check();
  if (status.ok()) status = CheckDocument(write.document(), field + ".document");
  if (!status.ok()) return FailedWrite(id, status);
  const absl::StatusOr<pb::CollectionSpec> spec = shards_.Collection(collection);
  if (!spec.ok()) return FailedWrite(id, spec.status());

  std::optional<IngestRoom> room;  // given back after the memory of the next
  shardpb::WriteRequest request;
  request.set_collection(spec->name());
  request.set_embedder_fingerprint(spec->embedder_fingerprint());
  request.set_tokenizer_fingerprint(spec->tokenizer_fingerprint());
  shardpb::DocumentChange& change = *request.add_changes();
  change = MakeChange(std::move(*write.mutable_document()));
  // First without text and chunks: what has not changed needs none, and embedding is what costs.
  std::string text = std::move(*change.mutable_document()->mutable_text());
  change.mutable_document()->clear_text();
  const uint32_t number = shards_.ShardOfDocument(id);
  absl::StatusOr<shardpb::WriteResponse> response = Send(shards_.shard(number), request, context);
  if (response.ok() && response->results(0).outcome() == shardpb::CHANGE_OUTCOME_NEEDS_CHUNKS) {
    room.emplace(budget_, CutBytesMax(text.size(), *spec), context);
    if (!room->Check().ok()) return FailedWrite(id, room->Check());
    change.mutable_document()->set_text(std::move(text));
    status = AddContent(*spec, write, field, context, change, *room);
    if (!status.ok()) return FailedWrite(id, status);
    response = Send(shards_.shard(number), request, context);
  }
  if (!response.ok()) return FailedWrite(id, shards_.Heed(response.status(), collection));
  const shardpb::ChangeResult& answer = response->results(0);
  if (answer.has_error()) return FailedWrite(id, FromItemError(answer.error()));

  WriteResult result;
  result.document.set_document_id(id);
  result.document.set_outcome(Outcome(answer.outcome()));
  result.document.set_chunk_count(answer.chunk_count());
  result.shard = number;
  result.position = response->position();
  return result;
}

absl::StatusOr<pb::CutChunksResponse> DocumentWriter::Cut(const pb::CutChunksRequest& request,
                                                          const CallContext& context) const {
  RETRO_ASSIGN_OR_RETURN(const pb::CollectionSpec spec, shards_.CollectionNow(request.collection(), context));
  RETRO_RETURN_IF_ERROR(CheckCuts(spec));
  const std::string_view text = request.text();
  const IngestRoom room(cut_budget_, CutBytesMax(text.size(), spec), context);
  RETRO_RETURN_IF_ERROR(room.Check());
  RETRO_RETURN_IF_ERROR(context.Check());  // after that wait
  pb::CutChunksResponse response;
  response.set_tokenizer_fingerprint(spec.tokenizer_fingerprint());
  for (TextChunk& cut : CutIntoChunks(tokenizer_, text, static_cast<int>(spec.chunk_size()))) {
    auto* chunk = response.add_chunks();
    chunk->set_chunk_number(static_cast<uint32_t>(response.chunks_size() - 1));
    chunk->mutable_byte_range()->set_begin(cut.begin);
    chunk->mutable_byte_range()->set_end(cut.end);
    chunk->set_text(std::string(text.substr(cut.begin, cut.end - cut.begin)));
    chunk->mutable_token_ids()->Assign(cut.tokens.begin(), cut.tokens.end());
  }
  return response;
}

absl::Status DocumentWriter::CheckCuts(const pb::CollectionSpec& spec) const {
  if (spec.tokenizer_fingerprint() == tokenizer_.fingerprint()) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kTokenizerMismatch,
               StrCat("collection \"", spec.name(),
                      "\" is cut by another tokenizer than this server's; start it with that one"));
}

absl::Status DocumentWriter::AddContent(const pb::CollectionSpec& spec, const pb::DocumentWrite& write,
                                        const std::string& field, const CallContext& context,
                                        shardpb::DocumentChange& change, IngestRoom& room) const {
  RETRO_RETURN_IF_ERROR(CheckCuts(spec));
  AddChunks(tokenizer_, spec.chunk_size(), change);
  room.ShrinkTo(change.SpaceUsedLong() + change.chunks_size() * EmbeddedChunkBytes(spec));
  if (!write.chunk_vectors().empty()) return AddGivenVectors(spec, write, field, change);
  RETRO_RETURN_IF_ERROR(embedding_.CheckServes(spec));
  shardpb::DocumentChange* const one = &change;
  return AddEmbeddedVectors(embedding_, context, {&one, 1});
}

absl::Status DocumentWriter::AddGivenVectors(const pb::CollectionSpec& spec, const pb::DocumentWrite& write,
                                             const std::string& field, shardpb::DocumentChange& change) const {
  if (write.embedder_fingerprint() != spec.embedder_fingerprint()) {
    return Error(
        absl::StatusCode::kFailedPrecondition, Reason::kEmbedderMismatch,
        field + ".embedder_fingerprint: the vectors are of another embedder than the collection's (see GetInfo)");
  }
  if (write.chunk_vectors_size() != change.chunks_size()) {
    return FieldError(field + ".chunk_vectors",
                      StrCat("there are ", write.chunk_vectors_size(), ", the text has ", change.chunks_size(),
                             " chunks; CutChunks tells where they are cut"));
  }
  for (int i = 0; i < write.chunk_vectors_size(); ++i) {
    const auto& values = write.chunk_vectors(i).values();
    const std::string place = StrCat(field, ".chunk_vectors[", i, "]");
    if (values.size() != static_cast<int>(spec.dimension())) {
      return FieldError(place,
                        StrCat("has ", values.size(), " numbers, the collection's vectors have ", spec.dimension()));
    }
    std::string half = ToHalf({values.data(), static_cast<size_t>(values.size())});
    if (!AllFinite(half)) return FieldError(place, "has a number that is not finite, or too large for half precision");
    change.mutable_chunks(i)->set_vector_fp16(std::move(half));
  }
  return absl::OkStatus();
}

}  // namespace retro
