#include "retriever_service/shard/message_parts.h"

#include <utility>

#include "common/base/error.h"

namespace retro {
namespace {

constexpr size_t kFieldBytesMax = 6;  // that a message within another takes beside its own

}  // namespace

void AddPart(shardpb::PullChangesResponse part, std::vector<shardpb::PullChangesResponse>& changes) {
  if (part.has_change()) {
    changes.push_back(std::move(part));
  } else if (!changes.empty()) {
    for (shardpb::ReplicatedChunk& row : *part.mutable_chunks()) *changes.back().add_chunks() = std::move(row);
  }
}

std::optional<shardpb::WriteRequest> WriteParts::Next() {
  if (change_ == request_.changes_size()) return std::nullopt;
  shardpb::WriteRequest part;
  if (change_ == 0 && chunk_ == 0) {
    part.set_collection(request_.collection());
    part.set_embedder_fingerprint(request_.embedder_fingerprint());
    part.set_tokenizer_fingerprint(request_.tokenizer_fingerprint());
    part.set_epoch(epoch_);
  }
  const shardpb::DocumentChange& from = request_.changes(change_);
  shardpb::DocumentChange& to = *part.add_changes();
  if (chunk_ == 0) {
    *to.mutable_document() = from.document();
    to.set_content_hash(from.content_hash());
    to.set_text_hash(from.text_hash());
    if (from.has_write_time()) *to.mutable_write_time() = from.write_time();
    to.set_any_version(from.any_version());
  }
  size_t bytes = to.ByteSizeLong();
  for (; chunk_ < from.chunks_size(); ++chunk_) {
    bytes += from.chunks(chunk_).ByteSizeLong() + kFieldBytesMax;
    if (bytes > bytes_max_ && to.chunks_size() > 0) return part;
    *to.add_chunks() = from.chunks(chunk_);
  }
  ++change_;
  chunk_ = 0;
  return part;
}

absl::Status AddPart(shardpb::WriteRequest part, shardpb::WriteRequest& request) {
  auto changes = std::move(*part.mutable_changes());
  part.clear_changes();
  request.MergeFrom(part);
  for (shardpb::DocumentChange& change : changes) {
    if (change.has_document()) {
      *request.add_changes() = std::move(change);
      continue;
    }
    if (request.changes().empty()) return FieldError("changes", "chunks came before their document");
    auto& chunks = *request.mutable_changes(request.changes_size() - 1)->mutable_chunks();
    for (shardpb::ChunkContent& chunk : *change.mutable_chunks()) *chunks.Add() = std::move(chunk);
  }
  return absl::OkStatus();
}

}  // namespace retro
