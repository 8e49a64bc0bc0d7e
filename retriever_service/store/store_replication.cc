// What a store gives its replicas, and how it is compared with them: the half of Store that a single one never needs.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <utility>

#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/layout.h"
#include "retriever_service/store/store.h"

namespace retro {
namespace {

constexpr uint32_t kRowsAtOnce = 1024;  // of a document, in memory
constexpr size_t kFieldBytesMax = 6;    // that a message within another takes beside its own

// The same bytes for the same content: maps have no order of their own.
std::string Canonical(const google::protobuf::Message& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

// Those of the document's chunks number `begin` and following, some at once.
std::vector<uint64_t> ChunkIds(const shardpb::ChunkRange& range, uint32_t begin) {
  std::vector<uint64_t> ids(std::min(kRowsAtOnce, range.count() - begin));
  for (uint32_t i = 0; i < ids.size(); ++i) ids[i] = ChunkIdAt(range.first_chunk_id(), begin + i);
  return ids;
}

}  // namespace

absl::Status Store::ReadReplicated(const shardpb::Change& change, const Snapshot* at, size_t part_bytes_max,
                                   const PartVisitor& visit) const {
  shardpb::PullChangesResponse part;
  *part.mutable_change() = change;
  if (!change.has_put() || change.put().rows_kept()) return visit(std::move(part));
  size_t bytes = part.ByteSizeLong();
  const shardpb::ChunkRange& range = change.put().record().chunks();
  for (uint32_t begin = 0; begin < range.count(); begin += kRowsAtOnce) {
    const std::vector<uint64_t> ids = ChunkIds(range, begin);
    RETRO_ASSIGN_OR_RETURN(auto rows, ReadChunks(change.collection_id(), ids, at));
    RETRO_ASSIGN_OR_RETURN(auto vectors, ReadVectors(change.collection_id(), ids, at));
    for (size_t i = 0; i < ids.size(); ++i) {
      if (!rows[i].has_value()) return Damaged(StrCat("chunk ", ids[i], " of a change in the log is missing"));
      shardpb::ReplicatedChunk chunk;
      chunk.set_chunk_id(ids[i]);
      *chunk.mutable_record() = *std::move(rows[i]);
      chunk.set_vector_fp16(std::move(vectors[i]));
      const size_t row_bytes = chunk.ByteSizeLong() + kFieldBytesMax;
      if (bytes + row_bytes > part_bytes_max) {
        RETRO_RETURN_IF_ERROR(visit(std::exchange(part, {})));
        bytes = 0;
      }
      *part.add_chunks() = std::move(chunk);
      bytes += row_bytes;
    }
  }
  return visit(std::move(part));
}

absl::StatusOr<shardpb::Position> Store::PositionAt(const Snapshot* at) const {
  RETRO_ASSIGN_OR_RETURN(const auto bytes, rows_->Get(Family::kMeta, "last_position", at));
  const auto position = bytes.has_value() ? PositionOfKey(*bytes) : std::nullopt;
  if (!position.has_value()) return Damaged("its positions have the wrong length");
  return *position;
}

absl::StatusOr<bool> Store::HasChange(const shardpb::Position& position, const Snapshot* at) const {
  const shardpb::Position start = log_start();
  if (position.number() == 0) return start.number() == 1;
  RETRO_ASSIGN_OR_RETURN(const auto entry, rows_->Get(Family::kChanges, ChangeKey(position), at));
  return entry.has_value();
}

absl::Status Store::HashRows(uint32_t collection, const shardpb::ChunkRange& chunks, const Snapshot* at,
                             const CallContext& context, Sha256& hasher) const {
  for (uint32_t begin = 0; begin < chunks.count(); begin += kRowsAtOnce) {
    RETRO_RETURN_IF_ERROR(context.Check());
    std::vector<std::string> keys(std::min(kRowsAtOnce, chunks.count() - begin));
    for (uint32_t i = 0; i < keys.size(); ++i) {
      keys[i] = ChunkKey(collection, ChunkIdAt(chunks.first_chunk_id(), begin + i));
    }
    RETRO_ASSIGN_OR_RETURN(const auto rows, rows_->MultiGet(Family::kChunks, keys, at));
    RETRO_ASSIGN_OR_RETURN(const auto vectors, rows_->MultiGet(Family::kVectors, keys, at));
    for (size_t i = 0; i < keys.size(); ++i) {
      if (!rows[i].has_value() || !vectors[i].has_value()) {
        return Damaged(StrCat("chunk ", ChunkIdAt(chunks.first_chunk_id(), begin + i), " is missing"));
      }
      hasher.UpdateField(*rows[i]);
      hasher.UpdateField(*vectors[i]);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Store::Digest> Store::ComputeDigest(const CallContext& context) const {
  const auto at = TakeSnapshot();
  Digest digest;
  RETRO_ASSIGN_OR_RETURN(digest.position, PositionAt(at.get()));
  Sha256 hasher;
  std::vector<uint32_t> collections;
  RETRO_RETURN_IF_ERROR(rows_->Scan(Family::kCollections, "", "", at.get(), /*fill_cache=*/false,
                                    [&](std::string_view key, std::string_view value) -> absl::StatusOr<bool> {
                                      hasher.UpdateField(key);
                                      hasher.UpdateField(value);
                                      collections.push_back(Decode32(key).value_or(0));
                                      return true;
                                    }));
  for (const uint32_t collection : collections) {
    RETRO_RETURN_IF_ERROR(ScanDocuments(collection, std::nullopt, at.get(),
                                        [&](uint32_t, const shardpb::DocumentRecord& record) -> absl::StatusOr<bool> {
                                          ++digest.documents;
                                          digest.chunks += record.chunks().count();
                                          hasher.UpdateField(Canonical(record));
                                          RETRO_RETURN_IF_ERROR(
                                              HashRows(collection, record.chunks(), at.get(), context, hasher));
                                          return true;
                                        }));
  }
  digest.sha256 = hasher.Finish();
  return digest;
}

}  // namespace retro
