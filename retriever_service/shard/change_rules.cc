#include "retriever_service/shard/change_rules.h"

#include <string>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/document_limits.h"
#include "common/document/half.h"
#include "common/tokenizer/utf8.h"

namespace retro {
namespace {

constexpr size_t kHashBytes = 32;

absl::Status CheckIdentity(const shardpb::DocumentChange& change) {
  const std::string& id = change.document().id();
  if (id.empty() || id.size() > kDocumentIdBytesMax) {
    return FieldError("document.id", StrCat(id.size(), " bytes, give 1 to ", kDocumentIdBytesMax));
  }
  if (change.content_hash().size() != kHashBytes) return FieldError("content_hash", "not 32 bytes");
  if (change.text_hash().size() != kHashBytes) return FieldError("text_hash", "not 32 bytes");
  return absl::OkStatus();
}

absl::Status CheckVector(const std::string& vector, uint32_t dimension, const std::string& field) {
  if (vector.size() != dimension * kHalfBytes) {
    return FieldError(field, StrCat(vector.size(), " bytes, the collection's vectors have ", dimension * kHalfBytes));
  }
  if (!AllFinite(vector)) return FieldError(field, "a number is not finite, or beyond the range of half precision");
  return absl::OkStatus();
}

absl::Status CheckChunks(const shardpb::DocumentChange& change, uint32_t dimension) {
  const std::string& text = change.document().text();
  uint64_t begin = 0;
  for (int i = 0; i < change.chunks_size(); ++i) {
    const shardpb::ChunkContent& chunk = change.chunks(i);
    const std::string field = StrCat("chunks[", i, "]");
    if (chunk.end() <= begin || chunk.end() > text.size()) {
      return FieldError(field + ".end", StrCat(chunk.end(), " is not between ", begin + 1, " and ", text.size()));
    }
    if (chunk.end() < text.size() && IsUtf8Continuation(text[chunk.end()])) {
      return FieldError(field + ".end", StrCat(chunk.end(), " is inside a character"));
    }
    RETRO_RETURN_IF_ERROR(CheckVector(chunk.vector_fp16(), dimension, field + ".vector_fp16"));
    begin = chunk.end();
  }
  if (begin != text.size()) {
    return FieldError("chunks", StrCat("they cover ", begin, " of the text's ", text.size(), " bytes"));
  }
  return absl::OkStatus();
}

absl::Status CheckVersion(const pb::Document& stored, const pb::Document& sent) {
  if (!sent.has_external_version() || !stored.has_external_version()) return absl::OkStatus();
  if (sent.external_version() >= stored.external_version()) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kVersionTooOld,
               StrCat("document \"", sent.id(), "\" has version ", stored.external_version(), " already, ",
                      sent.external_version(), " is older"));
}

}  // namespace

absl::StatusOr<Verdict> Judge(const std::optional<shardpb::DocumentRecord>& old, const shardpb::DocumentChange& change,
                              uint32_t dimension) {
  RETRO_RETURN_IF_ERROR(CheckIdentity(change));
  if (old.has_value()) {
    const pb::Document& stored = old->document();
    const pb::Document& sent = change.document();
    if (!change.any_version()) RETRO_RETURN_IF_ERROR(CheckVersion(stored, sent));
    if (old->content_hash() == change.content_hash()) {
      const bool other_version = sent.has_external_version() != stored.has_external_version() ||
                                 sent.external_version() != stored.external_version();
      const bool counts = sent.has_external_version() || change.any_version();
      return other_version && counts ? Verdict::kStoreVersion : Verdict::kUnchanged;
    }
    if (old->text_hash() == change.text_hash()) return Verdict::kReplaceMetadata;
  }
  if (change.chunks().empty()) return Verdict::kNeedsChunks;
  RETRO_RETURN_IF_ERROR(CheckChunks(change, dimension));
  return old.has_value() ? Verdict::kReplace : Verdict::kCreate;
}

std::string VectorsOf(const shardpb::DocumentChange& change) {
  std::string vectors;
  if (change.chunks_size() > 0) vectors.reserve(change.chunks_size() * change.chunks(0).vector_fp16().size());
  for (const shardpb::ChunkContent& chunk : change.chunks()) vectors += chunk.vector_fp16();
  return vectors;
}

absl::StatusOr<std::string> VectorsOf(const shardpb::PullChangesResponse& replicated, uint32_t dimension) {
  std::string vectors;
  vectors.reserve(size_t{dimension} * kHalfBytes * replicated.chunks_size());
  for (const shardpb::ReplicatedChunk& chunk : replicated.chunks()) {
    if (chunk.vector_fp16().size() != dimension * kHalfBytes) {
      return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                   StrCat("the primary's change ", replicated.change().position().number(), " has a vector of ",
                          chunk.vector_fp16().size(), " bytes, and the collection's have ", dimension * kHalfBytes,
                          ": see whether its store is whole"));
    }
    vectors += chunk.vector_fp16();
  }
  return vectors;
}

absl::Status DoneInPart(const absl::Status& why) {
  return Error(absl::StatusCode::kUnavailable, Reason::kWriteOutcomeUnknown,
               StrCat("some of it was done before it failed, repeat it: ", MessageOf(why)));
}

}  // namespace retro
