#include "retriever_service/store/store.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr char kRocksFolder[] = "/rocksdb";
constexpr char kMarkFile[] = "/acknowledged";

// Keys of the meta family.
constexpr char kLayoutKey[] = "layout_version";
constexpr char kStoreIdKey[] = "store_id";
constexpr char kClusterKey[] = "cluster";
constexpr char kShardKey[] = "shard";
constexpr char kShardCountKey[] = "shard_count";
constexpr char kLastKey[] = "last_position";
constexpr char kLogStartKey[] = "log_start";
constexpr char kNextChunkKey[] = "next_chunk";
constexpr char kNextCollectionKey[] = "next_collection";
constexpr char kEpochStartsKey[] = "epoch_starts";

constexpr uint64_t kFirstEpoch = 1;
constexpr uint64_t kFirstNumber = 1;
// A call of TrimLog ends with the change that reaches either; a document of 8 MiB alone may have a million rows.
constexpr uint64_t kTrimChangesMax = 1024;
constexpr uint64_t kTrimRowsMax = 65'536;
constexpr std::chrono::hours kKeepLogOnMax{24};

std::string RandomStoreId() {
  std::random_device random;
  std::string id;
  while (id.size() < kStoreIdBytes) id += Encode32(random());
  return id;
}

// Rows that nothing refers to any more once `change` is out of the log.
uint64_t RowsFreedBy(const shardpb::Change& change) {
  return uint64_t{change.put().replaced().count()} + change.remove().removed().count();
}

absl::Status Foreign(const std::string& path, std::string_view what, std::string_view stored, std::string_view given) {
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kForeignStore,
               StrCat("the store in ", path, " is of ", what, " ", stored, ", not ", given,
                      ": name its own folder, or start with its settings"));
}

}  // namespace

Store::Store(const StoreOptions& options, std::unique_ptr<KeyValueStore> rows)
    : options_(options), rows_(std::move(rows)) {}

// ---------------------------------------------------------------- opening

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const StoreOptions& options) {
  KeyValueOptions rows_options;
  rows_options.path = options.path + kRocksFolder;
  rows_options.memory_bytes = options.memory_bytes;
  rows_options.verify_tables = options.verify_tables;
  std::error_code none;
  const uintmax_t mark_bytes = std::filesystem::file_size(options.path + kMarkFile, none);
  rows_options.opened_before = !none && mark_bytes > 0;
  RETRO_ASSIGN_OR_RETURN(auto rows, KeyValueStore::Open(rows_options));
  std::unique_ptr<Store> store(new Store(options, std::move(rows)));
  RETRO_RETURN_IF_ERROR(store->Load());
  return store;
}

absl::StatusOr<std::unique_ptr<Store>> Store::OpenSnapshot(const std::string& path) {
  StoreOptions options;
  options.path = path;
  KeyValueOptions rows_options;
  rows_options.path = path + kRocksFolder;
  rows_options.read_only = true;
  RETRO_ASSIGN_OR_RETURN(auto rows, KeyValueStore::Open(rows_options));
  std::unique_ptr<Store> store(new Store(options, std::move(rows)));
  RETRO_RETURN_IF_ERROR(store->ReadIdentity());
  RETRO_RETURN_IF_ERROR(store->LoadCounters());
  RETRO_ASSIGN_OR_RETURN(const auto acknowledged, AcknowledgedMark::Read(options.path + kMarkFile));
  RETRO_RETURN_IF_ERROR(store->CheckNothingIsMissing(acknowledged));
  RETRO_RETURN_IF_ERROR(store->LoadCollections());
  return store;
}

absl::Status Store::Load() {
  RETRO_ASSIGN_OR_RETURN(mark_, AcknowledgedMark::Open(options_.path + kMarkFile));
  RETRO_ASSIGN_OR_RETURN(const auto layout, rows_->Get(Family::kMeta, kLayoutKey, nullptr));
  if (!layout.has_value() && !mark_->found().has_value()) RETRO_RETURN_IF_ERROR(WriteIdentity());
  RETRO_RETURN_IF_ERROR(ReadIdentity());
  RETRO_RETURN_IF_ERROR(CheckIdentity());
  RETRO_RETURN_IF_ERROR(LoadCounters());
  RETRO_RETURN_IF_ERROR(CheckNothingIsMissing(mark_->found()));
  RETRO_RETURN_IF_ERROR(mark_->Write(last_position()));
  return LoadCollections();
}

absl::Status Store::WriteIdentity() {
  KeyValueBatch batch;
  batch.Put(Family::kMeta, kLayoutKey, Encode32(kLayoutVersion));
  batch.Put(Family::kMeta, kStoreIdKey, options_.store_id.empty() ? RandomStoreId() : options_.store_id);
  batch.Put(Family::kMeta, kClusterKey, options_.cluster);
  batch.Put(Family::kMeta, kShardKey, Encode32(options_.shard));
  batch.Put(Family::kMeta, kShardCountKey, Encode32(options_.shard_count));
  batch.Put(Family::kMeta, kLastKey, ChangeKey(MakePosition(kFirstEpoch, kFirstNumber - 1)));
  batch.Put(Family::kMeta, kLogStartKey, ChangeKey(MakePosition(kFirstEpoch, kFirstNumber)));
  batch.Put(Family::kMeta, kNextChunkKey, Encode64(1));
  batch.Put(Family::kMeta, kNextCollectionKey, Encode32(0));
  return rows_->Write(batch);
}

absl::Status Store::ReadIdentity() {
  RETRO_ASSIGN_OR_RETURN(const std::string layout_bytes, ReadMeta(kLayoutKey));
  const std::optional<uint32_t> layout = Decode32(layout_bytes);
  if (layout != kLayoutVersion) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kLayoutUnknown,
                 StrCat("the store in ", options_.path, " has layout version ", layout.value_or(0),
                        ", this program knows ", kLayoutVersion, " only: use the version that wrote it"));
  }
  RETRO_ASSIGN_OR_RETURN(identity_.store_id, ReadMeta(kStoreIdKey));
  RETRO_ASSIGN_OR_RETURN(identity_.cluster, ReadMeta(kClusterKey));
  RETRO_ASSIGN_OR_RETURN(identity_.shard, ReadMetaNumber(kShardKey));
  RETRO_ASSIGN_OR_RETURN(identity_.shard_count, ReadMetaNumber(kShardCountKey));
  return absl::OkStatus();
}

absl::Status Store::CheckIdentity() const {
  if (identity_.cluster != options_.cluster) {
    return Foreign(options_.path, "cluster", StrCat("\"", identity_.cluster, "\""),
                   StrCat("\"", options_.cluster, "\""));
  }
  if (!options_.store_id.empty() && identity_.store_id != options_.store_id) {
    return Foreign(options_.path, "store", HexEncode(identity_.store_id), HexEncode(options_.store_id));
  }
  if (identity_.shard != options_.shard || identity_.shard_count != options_.shard_count) {
    return Foreign(options_.path, "shard", StrCat(identity_.shard, " of ", identity_.shard_count),
                   StrCat(options_.shard, " of ", options_.shard_count));
  }
  return absl::OkStatus();
}

absl::Status Store::LoadCounters() {
  RETRO_ASSIGN_OR_RETURN(const std::string last_bytes, ReadMeta(kLastKey));
  RETRO_ASSIGN_OR_RETURN(const std::string start_bytes, ReadMeta(kLogStartKey));
  const auto last = PositionOfKey(last_bytes);
  const auto start = PositionOfKey(start_bytes);
  if (!last.has_value() || !start.has_value()) return Damaged("its positions have the wrong length");
  counters_.epoch = last->epoch();
  counters_.number = last->number();
  RETRO_ASSIGN_OR_RETURN(counters_.next_chunk, ReadMetaNumber(kNextChunkKey));
  RETRO_ASSIGN_OR_RETURN(counters_.next_collection, ReadMetaNumber(kNextCollectionKey));
  RETRO_ASSIGN_OR_RETURN(const auto starts_bytes, rows_->Get(Family::kMeta, kEpochStartsKey, nullptr));
  auto starts = EpochStarts::Decode(starts_bytes.value_or(""));
  if (!starts.has_value()) return Damaged("where its epochs began is not readable");
  const MutexLock lock(mutex_);
  epoch_starts_ = *std::move(starts);
  last_position_ = *last;
  log_start_ = *start;
  return absl::OkStatus();
}

// Two things that a log cut short would leave: an end before the newest acknowledged change, and numbers left out.
absl::Status Store::CheckNothingIsMissing(const std::optional<shardpb::Position>& acknowledged) const {
  const shardpb::Position last = last_position();
  const auto lost = [this](const std::string& what) {
    return Damaged(StrCat(what, "; write-ahead logs found: ", rows_->logs_found()));
  };
  if (acknowledged.has_value() && IsBefore(last, *acknowledged)) {
    return lost(StrCat("it ends at change ", last.number(), ", and ", options_.path, kMarkFile, " has change ",
                       acknowledged->number(), " as acknowledged"));
  }
  const shardpb::Position start = log_start();
  uint64_t next = start.number();
  RETRO_RETURN_IF_ERROR(rows_->Scan(Family::kChanges, ChangeKey(start), "", nullptr, /*fill_cache=*/false,
                                    [&](std::string_view key, std::string_view) -> absl::StatusOr<bool> {
                                      const auto position = PositionOfKey(key);
                                      if (!position.has_value() || position->number() != next) return false;
                                      ++next;
                                      return true;
                                    }));
  return next == last.number() + 1 ? absl::OkStatus() : lost(StrCat("change ", next, " is missing"));
}

absl::Status Store::LoadCollections() {
  std::vector<Collection> collections;
  RETRO_RETURN_IF_ERROR(rows_->Scan(Family::kCollections, "", "", nullptr, /*fill_cache=*/true,
                                    [&](std::string_view key, std::string_view value) -> absl::StatusOr<bool> {
                                      Collection collection;
                                      const std::optional<uint32_t> id = Decode32(key);
                                      if (!id.has_value() || !collection.spec.ParseFromArray(
                                                                 value.data(), static_cast<int>(value.size()))) {
                                        return Damaged("a collection's record is not readable");
                                      }
                                      collection.id = *id;
                                      collections.push_back(std::move(collection));
                                      return true;
                                    }));
  const MutexLock lock(mutex_);
  collections_ = std::move(collections);
  return absl::OkStatus();
}

absl::StatusOr<std::string> Store::ReadMeta(std::string_view key) const {
  RETRO_ASSIGN_OR_RETURN(auto value, rows_->Get(Family::kMeta, key, nullptr));
  if (!value.has_value()) return Damaged(StrCat("\"", key, "\" is missing"));
  return *std::move(value);
}

absl::StatusOr<uint64_t> Store::ReadMetaNumber(std::string_view key) const {
  RETRO_ASSIGN_OR_RETURN(const std::string bytes, ReadMeta(key));
  if (const auto value = Decode32(bytes)) return *value;
  if (const auto value = Decode64(bytes)) return *value;
  return Damaged(StrCat("\"", key, "\" has the wrong length"));
}

absl::Status Store::Damaged(std::string_view what) const {
  return Error(
      absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
      StrCat("the store in ", options_.path, " is damaged: ", what, "; restore it from a snapshot or a replica"));
}

// ---------------------------------------------------------------- reading

std::vector<Collection> Store::Collections() const {
  std::vector<Collection> collections;
  {
    const MutexLock lock(mutex_);
    collections = collections_;
  }
  std::sort(collections.begin(), collections.end(),
            [](const Collection& a, const Collection& b) { return a.spec.name() < b.spec.name(); });
  return collections;
}

std::optional<Collection> Store::FindCollection(std::string_view name) const {
  const MutexLock lock(mutex_);
  for (const Collection& collection : collections_) {
    if (collection.spec.name() == name) return collection;
  }
  return std::nullopt;
}

shardpb::Position Store::last_position() const {
  const MutexLock lock(mutex_);
  return last_position_;
}

shardpb::Position Store::log_start() const {
  const MutexLock lock(mutex_);
  return log_start_;
}

EpochStarts Store::epoch_starts() const {
  const MutexLock lock(mutex_);
  return epoch_starts_;
}

bool Store::HasLost(const shardpb::Position& position) const {
  const MutexLock lock(mutex_);
  return epoch_starts_.RuleOut(position);
}

bool Store::read_only() const {
  const MutexLock lock(mutex_);
  return write_failed_;
}

absl::StatusOr<std::optional<shardpb::DocumentRecord>> Store::ReadDocument(uint32_t collection, std::string_view id,
                                                                           const Snapshot* at) const {
  RETRO_ASSIGN_OR_RETURN(const auto value, rows_->Get(Family::kDocuments, DocumentKey(collection, id), at));
  if (!value.has_value()) return std::nullopt;
  shardpb::DocumentRecord record;
  if (!record.ParseFromString(*value)) return Damaged("a document's record is not readable");
  return record;
}

absl::StatusOr<std::vector<std::optional<shardpb::ChunkRecord>>> Store::ReadChunks(uint32_t collection,
                                                                                   std::span<const uint64_t> chunk_ids,
                                                                                   const Snapshot* at) const {
  std::vector<std::string> keys;
  keys.reserve(chunk_ids.size());
  for (const uint64_t id : chunk_ids) keys.push_back(ChunkKey(collection, id));
  RETRO_ASSIGN_OR_RETURN(const auto values, rows_->MultiGet(Family::kChunks, keys, at));
  std::vector<std::optional<shardpb::ChunkRecord>> records(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i].has_value()) continue;
    if (!records[i].emplace().ParseFromString(*values[i])) return Damaged("a chunk's record is not readable");
  }
  return records;
}

absl::StatusOr<std::vector<std::string>> Store::ReadVectors(uint32_t collection, std::span<const uint64_t> chunk_ids,
                                                            const Snapshot* at) const {
  std::vector<std::string> keys;
  keys.reserve(chunk_ids.size());
  for (const uint64_t id : chunk_ids) keys.push_back(ChunkKey(collection, id));
  RETRO_ASSIGN_OR_RETURN(auto values, rows_->MultiGet(Family::kVectors, keys, at));
  std::vector<std::string> vectors;
  vectors.reserve(values.size());
  for (auto& value : values) {
    if (!value.has_value()) return Damaged("a chunk's vector is missing");
    vectors.push_back(*std::move(value));
  }
  return vectors;
}

absl::StatusOr<std::string> Store::ReadText(uint32_t collection, const shardpb::DocumentRecord& record,
                                            const Snapshot* at) const {
  const shardpb::ChunkRange& rows = record.chunks();
  const uint64_t first = rows.first_chunk_id();
  std::string text;
  text.reserve(record.text_bytes());
  RETRO_RETURN_IF_ERROR(rows_->Scan(
      Family::kChunks, ChunkKey(collection, first), ChunkKey(collection, ChunkIdAt(first, rows.count())), at,
      /*fill_cache=*/true, [&](std::string_view, std::string_view value) -> absl::StatusOr<bool> {
        shardpb::ChunkRecord chunk;
        if (!chunk.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          return Damaged("a chunk's record is not readable");
        }
        text += chunk.text();
        return true;
      }));
  if (text.size() != record.text_bytes()) {
    return Damaged(StrCat("document \"", record.document().id(), "\" has ", text.size(), " bytes of text, not ",
                          record.text_bytes()));
  }
  return text;
}

absl::Status Store::ScanDocuments(uint32_t collection, const std::optional<DocumentPlace>& after, const Snapshot* at,
                                  const DocumentVisitor& visit) const {
  std::string begin = CollectionPrefix(collection);
  if (after.has_value()) {
    begin = SlotPrefix(collection, after->slot) + after->id;
    begin.push_back('\0');  // the least key after it
  }
  return rows_->Scan(Family::kDocuments, begin, AfterPrefix(CollectionPrefix(collection)), at, /*fill_cache=*/false,
                     [&](std::string_view, std::string_view value) -> absl::StatusOr<bool> {
                       shardpb::DocumentRecord record;
                       if (!record.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
                         return Damaged("a document's record is not readable");
                       }
                       return visit(SlotOfChunk(record.chunks().first_chunk_id()), record);
                     });
}

absl::Status Store::ScanLog(const shardpb::Position& after, const Snapshot* at, const ChangeVisitor& visit) const {
  return rows_->Scan(Family::kChanges, ChangeKey(after) + '\0', "", at, /*fill_cache=*/false,
                     [&](std::string_view, std::string_view value) -> absl::StatusOr<bool> {
                       shardpb::Change change;
                       if (!change.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
                         return Damaged("an entry of the change log is not readable");
                       }
                       return visit(change);
                     });
}

// ---------------------------------------------------------------- writing

Transaction Store::Begin() const { return Transaction(*this); }

absl::Status Store::Commit(Transaction transaction) {
  if (transaction.changes_ == 0) return absl::OkStatus();
  const Counters& counters = transaction.counters_;
  transaction.batch_.Put(Family::kMeta, kLastKey, ChangeKey(transaction.position()));
  transaction.batch_.Put(Family::kMeta, kNextChunkKey, Encode64(counters.next_chunk));
  transaction.batch_.Put(Family::kMeta, kNextCollectionKey, Encode32(counters.next_collection));
  std::optional<EpochStarts>& starts = transaction.epoch_starts_;
  if (starts.has_value()) transaction.batch_.Put(Family::kMeta, kEpochStartsKey, starts->Encode());
  RETRO_RETURN_IF_ERROR(Write(transaction.batch_));
  counters_ = counters;
  if (const absl::Status marked = mark_->Write(transaction.position()); !marked.ok()) {
    spdlog::warn("a loss of the newest changes would not be noticed: {}", MessageOf(marked));
  }
  const MutexLock lock(mutex_);
  last_position_ = transaction.position();
  if (starts.has_value()) epoch_starts_ = *std::move(starts);
  for (Collection& collection : transaction.new_collections_) collections_.push_back(std::move(collection));
  for (const uint32_t dropped : transaction.dropped_collections_) {
    std::erase_if(collections_, [dropped](const Collection& collection) { return collection.id == dropped; });
  }
  return absl::OkStatus();
}

// A batch that failed halfway might come back from the write-ahead log after a restart, while its numbers are given out
// again: so nothing is written after a failure until Resume has replaced that log.
absl::Status Store::Write(const KeyValueBatch& batch) {
  absl::Status status = rows_->Resume();
  if (status.ok()) status = rows_->Write(batch);
  const MutexLock lock(mutex_);
  write_failed_ = !status.ok();
  return status;
}

void Store::KeepLog(const std::string& who, const shardpb::Position& from, Clock::time_point until) {
  const MutexLock lock(mutex_);
  kept_[who] = {from.number(), until, Clock::now() + kKeepLogOnMax};
}

void Store::KeepLogOnFrom(const std::string& who, const shardpb::Position& from, Clock::time_point until) {
  const MutexLock lock(mutex_);
  const auto kept = kept_.find(who);
  if (kept == kept_.end()) return;
  kept->second.from = std::max(kept->second.from, from.number());
  kept->second.until = std::min(until, kept->second.until_at_most);
}

uint64_t Store::KeepLogFrom(uint64_t changes) {
  uint64_t from = counters_.number + 1 - std::min(changes, counters_.number);
  const MutexLock lock(mutex_);
  std::erase_if(kept_, [now = Clock::now()](const auto& kept) { return kept.second.until <= now; });
  for (const auto& [who, kept] : kept_) from = std::min(from, kept.from);
  return from;
}

absl::Status Store::TrimLog() {
  const shardpb::Position start = log_start();
  // Each trim is a synced write of its own: not one after every change.
  const uint64_t due = std::min(kTrimChangesMax, options_.log_changes_max);
  if (counters_.number - start.number() + 1 < options_.log_changes_max + due) return absl::OkStatus();
  return TrimLogTo(options_.log_changes_max).status();
}

// What a change that leaves the log has freed by itself; see FORMAT.md for what tombstones tell of.
void Store::FreeRowsOf(const shardpb::Change& change, KeyValueBatch& batch) {
  if (!change.has_drop_collection()) return;
  const std::string prefix = CollectionPrefix(change.collection_id());
  for (const Family family : {Family::kChunks, Family::kVectors}) {
    batch.DeleteRange(family, prefix, AfterPrefix(prefix));
  }
}

absl::StatusOr<bool> Store::TrimLogTo(uint64_t changes) {
  const shardpb::Position start = log_start();
  const uint64_t keep_from = KeepLogFrom(changes);
  if (keep_from <= start.number()) return false;
  KeyValueBatch batch;
  shardpb::Position next_start = start;
  uint64_t trimmed = 0;
  uint64_t rows = 0;
  const std::string begin = ChangeKey(start);
  RETRO_RETURN_IF_ERROR(rows_->Scan(Family::kChanges, begin, "", nullptr, /*fill_cache=*/false,
                                    [&](std::string_view key, std::string_view value) -> absl::StatusOr<bool> {
                                      const auto position = PositionOfKey(key);
                                      if (!position.has_value()) return Damaged("a change's key has the wrong length");
                                      next_start = *position;
                                      if (position->number() >= keep_from || trimmed == kTrimChangesMax ||
                                          rows >= kTrimRowsMax)
                                        return false;
                                      shardpb::Change change;
                                      if (!change.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
                                        return Damaged("an entry of the change log is not readable");
                                      }
                                      rows += RowsFreedBy(change);
                                      FreeRowsOf(change, batch);
                                      batch.Delete(Family::kChanges, std::string(key));
                                      ++trimmed;
                                      return true;
                                    }));
  RETRO_RETURN_IF_ERROR(rows_->Scan(Family::kTombstones, begin, ChangeKey(next_start), nullptr, /*fill_cache=*/false,
                                    [&](std::string_view key, std::string_view value) -> absl::StatusOr<bool> {
                                      const std::optional<Tombstone> tombstone = DecodeTombstone(value);
                                      if (!tombstone.has_value()) return Damaged("a tombstone is not readable");
                                      for (uint32_t i = 0; i < tombstone->rows.count(); ++i) {
                                        const std::string row = ChunkKey(
                                            tombstone->collection, ChunkIdAt(tombstone->rows.first_chunk_id(), i));
                                        batch.Delete(Family::kChunks, row);
                                        batch.Delete(Family::kVectors, row);
                                      }
                                      batch.Delete(Family::kTombstones, std::string(key));
                                      return true;
                                    }));
  batch.Put(Family::kMeta, kLogStartKey, ChangeKey(next_start));
  RETRO_RETURN_IF_ERROR(Write(batch));
  const MutexLock lock(mutex_);
  log_start_ = next_start;
  return next_start.number() < keep_from;
}

}  // namespace retro
