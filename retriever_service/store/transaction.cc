#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/layout.h"
#include "retriever_service/store/store.h"

namespace retro {
namespace {

void SetNow(google::protobuf::Timestamp& time) {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since_epoch);
  time.set_seconds(seconds.count());
  time.set_nanos(static_cast<int32_t>(std::chrono::nanoseconds(since_epoch - seconds).count()));
}

// The record of a document without its rows and text.
shardpb::DocumentRecord MakeRecord(const shardpb::DocumentChange& change) {
  const pb::Document& from = change.document();
  shardpb::DocumentRecord record;
  pb::Document& to = *record.mutable_document();
  to.set_id(from.id());
  to.set_title(from.title());
  to.set_source(from.source());
  *to.mutable_metadata() = from.metadata();
  if (from.has_external_version()) to.set_external_version(from.external_version());
  record.set_content_hash(change.content_hash());
  record.set_text_hash(change.text_hash());
  if (change.has_write_time()) *record.mutable_write_time() = change.write_time();
  return record;
}

}  // namespace

Transaction::Transaction(const Store& store) : store_(&store), counters_(store.counters_) {}

shardpb::Position Transaction::position() const { return MakePosition(counters_.epoch, counters_.number); }

absl::StatusOr<std::optional<shardpb::DocumentRecord>> Transaction::FindDocument(uint32_t collection,
                                                                                 std::string_view id) const {
  const auto it = documents_.find(DocumentKey(collection, id));
  if (it != documents_.end()) return it->second;
  return store_->ReadDocument(collection, id, /*at=*/nullptr);
}

const shardpb::DocumentRecord& Transaction::PutDocument(uint32_t collection, const shardpb::DocumentChange& change,
                                                        const std::optional<shardpb::DocumentRecord>& old) {
  shardpb::Change logged = NextChange(collection);
  shardpb::DocumentRecord record = MakeRecord(change);
  record.set_text_bytes(change.document().text().size());
  *record.mutable_chunks() = AddRows(collection, change);
  if (old.has_value()) {
    *logged.mutable_put()->mutable_replaced() = old->chunks();
    Bury(collection, old->chunks(), logged.position());
  }
  return PutRecord(collection, std::move(record), std::move(logged));
}

const shardpb::DocumentRecord& Transaction::PutMetadata(uint32_t collection, const shardpb::DocumentChange& change,
                                                        const shardpb::DocumentRecord& old) {
  shardpb::DocumentRecord record = MakeRecord(change);
  record.set_text_bytes(old.text_bytes());
  *record.mutable_chunks() = old.chunks();
  shardpb::Change logged = NextChange(collection);
  logged.mutable_put()->set_rows_kept(true);
  return PutRecord(collection, std::move(record), std::move(logged));
}

void Transaction::RemoveDocument(uint32_t collection, const shardpb::DocumentRecord& old) {
  shardpb::Change change = NextChange(collection);
  change.mutable_remove()->set_document_id(old.document().id());
  *change.mutable_remove()->mutable_removed() = old.chunks();
  Bury(collection, old.chunks(), change.position());
  const std::string key = DocumentKey(collection, old.document().id());
  batch_.Delete(Family::kDocuments, key);
  documents_[key] = std::nullopt;
  Log(change);
}

uint32_t Transaction::CreateCollection(const pb::CollectionSpec& spec) {
  const uint32_t id = counters_.next_collection++;
  shardpb::Change change = NextChange(id);
  *change.mutable_create_collection() = spec;
  AddCollection({id, spec});
  Log(change);
  return id;
}

void Transaction::DropCollection(const Collection& collection) {
  shardpb::Change change = NextChange(collection.id);
  change.set_drop_collection(collection.spec.name());
  RemoveCollection(collection.id);
  Log(change);
}

void Transaction::StartEpoch(uint64_t epoch, const shardpb::EpochStart& start) {
  counters_.epoch = epoch;
  shardpb::Change change = NextChange(/*collection=*/0);
  *change.mutable_epoch_start() = start;
  NoteEpochStart(change.position());
  Log(change);
}

// ---------------------------------------------------------------- as a replica

// All of it before anything is staged: a position without its change would be a hole in the log.
absl::Status Transaction::CheckReplicated(const shardpb::PullChangesResponse& replicated) const {
  const shardpb::Change& change = replicated.change();
  if (change.position().number() != counters_.number + 1 || change.position().epoch() < counters_.epoch) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kBehindLog,
                 StrCat("change ", change.position().epoch(), "/", change.position().number(), " does not follow ",
                        counters_.epoch, "/", counters_.number));
  }
  const bool known = change.has_put() || change.has_remove() || change.has_create_collection() ||
                     change.has_drop_collection() || change.has_epoch_start();
  if (!known) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kLayoutUnknown,
                 "the primary made a change of a kind that this version does not know: use the primary's version");
  }
  const uint32_t rows = change.put().rows_kept() ? 0 : change.put().record().chunks().count();
  if (static_cast<uint32_t>(replicated.chunks_size()) != rows) {
    return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                 StrCat("a change of ", rows, " rows came with ", replicated.chunks_size()));
  }
  return absl::OkStatus();
}

absl::Status Transaction::Replay(const shardpb::PullChangesResponse& replicated) {
  RETRO_RETURN_IF_ERROR(CheckReplicated(replicated));
  const shardpb::Change& change = replicated.change();
  counters_.epoch = change.position().epoch();
  ++counters_.number;
  ++changes_;
  switch (change.operation_case()) {
    case shardpb::Change::kPut:
      ReplayPut(replicated);
      break;
    case shardpb::Change::kRemove:
      Bury(change.collection_id(), change.remove().removed(), change.position());
      batch_.Delete(Family::kDocuments, DocumentKey(change.collection_id(), change.remove().document_id()));
      break;
    case shardpb::Change::kCreateCollection:
      counters_.next_collection = std::max(counters_.next_collection, change.collection_id() + 1);
      AddCollection({change.collection_id(), change.create_collection()});
      break;
    case shardpb::Change::kDropCollection:
      RemoveCollection(change.collection_id());
      break;
    default:
      NoteEpochStart(change.position());
      break;
  }
  Log(change);
  return absl::OkStatus();
}

void Transaction::ReplayPut(const shardpb::PullChangesResponse& replicated) {
  const shardpb::Change& change = replicated.change();
  const shardpb::PutDocument& put = change.put();
  const shardpb::ChunkRange& rows = put.record().chunks();
  const uint64_t counter = rows.first_chunk_id() >> kSlotBits;
  counters_.next_chunk = std::max(counters_.next_chunk, counter + rows.count());
  for (const shardpb::ReplicatedChunk& chunk : replicated.chunks()) {
    const std::string key = ChunkKey(change.collection_id(), chunk.chunk_id());
    batch_.Put(Family::kChunks, key, chunk.record().SerializeAsString());
    batch_.Put(Family::kVectors, key, chunk.vector_fp16());
  }
  if (put.has_replaced()) Bury(change.collection_id(), put.replaced(), change.position());
  batch_.Put(Family::kDocuments, DocumentKey(change.collection_id(), put.record().document().id()),
             put.record().SerializeAsString());
}

// ---------------------------------------------------------------- parts

shardpb::Change Transaction::NextChange(uint32_t collection) {
  ++counters_.number;
  ++changes_;
  shardpb::Change change;
  *change.mutable_position() = position();
  SetNow(*change.mutable_write_time());
  change.set_collection_id(collection);
  return change;
}

void Transaction::Log(const shardpb::Change& change) {
  batch_.Put(Family::kChanges, ChangeKey(change.position()), change.SerializeAsString());
}

void Transaction::NoteEpochStart(const shardpb::Position& start) {
  if (!epoch_starts_.has_value()) epoch_starts_ = store_->epoch_starts();
  epoch_starts_->Add(start);
}

void Transaction::Bury(uint32_t collection, const shardpb::ChunkRange& rows, const shardpb::Position& position) {
  batch_.Put(Family::kTombstones, ChangeKey(position), EncodeTombstone({collection, rows}));
}

void Transaction::AddCollection(const Collection& collection) {
  batch_.Put(Family::kCollections, CollectionKey(collection.id), collection.spec.SerializeAsString());
  new_collections_.push_back(collection);
}

// Its rows stay until the log no longer has the change: see Store::TrimLogTo.
void Transaction::RemoveCollection(uint32_t collection) {
  const std::string prefix = CollectionPrefix(collection);
  batch_.Delete(Family::kCollections, CollectionKey(collection));
  batch_.DeleteRange(Family::kDocuments, prefix, AfterPrefix(prefix));
  dropped_collections_.push_back(collection);
}

shardpb::ChunkRange Transaction::AddRows(uint32_t collection, const shardpb::DocumentChange& change) {
  const pb::Document& document = change.document();
  shardpb::ChunkRange rows;
  rows.set_first_chunk_id(MakeChunkId(counters_.next_chunk, SlotOfDocument(document.id())));
  rows.set_count(change.chunks_size());
  counters_.next_chunk += change.chunks_size();
  uint64_t begin = 0;
  for (int i = 0; i < change.chunks_size(); ++i) {
    const shardpb::ChunkContent& chunk = change.chunks(i);
    shardpb::ChunkRecord row;
    row.set_document_id(document.id());
    row.set_chunk_number(i);
    row.set_begin(begin);
    row.set_text(document.text().substr(begin, chunk.end() - begin));
    *row.mutable_token_ids() = chunk.token_ids();
    const std::string key = ChunkKey(collection, ChunkIdAt(rows.first_chunk_id(), i));
    batch_.Put(Family::kChunks, key, row.SerializeAsString());
    batch_.Put(Family::kVectors, key, chunk.vector_fp16());
    begin = chunk.end();
  }
  return rows;
}

const shardpb::DocumentRecord& Transaction::PutRecord(uint32_t collection, shardpb::DocumentRecord record,
                                                      shardpb::Change change) {
  if (!record.has_write_time()) *record.mutable_write_time() = change.write_time();
  *record.mutable_position() = change.position();
  *change.mutable_put()->mutable_record() = record;
  Log(change);
  const std::string key = DocumentKey(collection, record.document().id());
  batch_.Put(Family::kDocuments, key, record.SerializeAsString());
  std::optional<shardpb::DocumentRecord>& slot = documents_[key];
  slot = std::move(record);
  return *slot;
}

}  // namespace retro
