// A shard's truth: documents, chunks, vectors and the log of changes, on disk as FORMAT.md says.
//
// Reading may happen on any thread. Begin, Commit and TrimLog belong to one thread, the shard's writer: every change
// sees those before it. Statuses are those of key_value.h, and DATA_LOSS (STORE_DAMAGED) for rows that contradict each
// other.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/base/sync.h"
#include "common/document/protos.h"
#include "retriever_service/store/acknowledged_mark.h"
#include "retriever_service/store/epoch_starts.h"
#include "retriever_service/store/key_value.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

class Sha256;

inline constexpr size_t kStoreIdBytes = 16;

struct StoreOptions {
  std::string path;     // the data folder; what it holds lies in folders within
  std::string cluster;  // "" for a standalone store
  uint32_t shard = 0;
  uint32_t shard_count = 1;
  std::string
      store_id;  // 16 bytes, equal on all shards of a store; "": made at random for a new one, any for an old one
  // Changes that the log keeps at least; rows that older changes freed are removed from disk.
  uint64_t log_changes_max = 100'000;
  size_t memory_bytes = KeyValueOptions().memory_bytes;  // as there
  bool verify_tables = KeyValueOptions().verify_tables;  // as there
};

struct StoreIdentity {
  std::string store_id;  // 16 bytes
  std::string cluster;
  uint32_t shard = 0;
  uint32_t shard_count = 1;
};

struct Collection {
  uint32_t id = 0;  // never reused; in keys
  pb::CollectionSpec spec;
};

class Transaction;

class Store {
 public:
  using Snapshot = KeyValueStore::Snapshot;

  // Opens the store in options.path, or makes one there. FAILED_PRECONDITION, naming the folder: LAYOUT_UNKNOWN,
  // FOREIGN_STORE (another cluster, shard or store id), STORE_LOCKED. DATA_LOSS (STORE_DAMAGED), naming files, if
  // anything that was acknowledged is missing.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const StoreOptions& options);

  // Opens a copy of a store for reading, whatever shard of whatever cluster it is of; nothing in it is changed, and
  // nothing may be written.
  static absl::StatusOr<std::unique_ptr<Store>> OpenSnapshot(const std::string& path);

  const StoreIdentity& identity() const { return identity_; }
  const std::string& path() const { return options_.path; }

  // ------------------------------------------------------------ reading
  std::vector<Collection> Collections() const ABSL_LOCKS_EXCLUDED(mutex_);  // by name
  std::optional<Collection> FindCollection(std::string_view name) const ABSL_LOCKS_EXCLUDED(mutex_);
  shardpb::Position last_position() const ABSL_LOCKS_EXCLUDED(mutex_);  // of the newest durable change
  // The same from the rows, which replicas read: they have it some moments before last_position() tells.
  absl::StatusOr<shardpb::Position> ReadLastPosition() const { return PositionAt(/*at=*/nullptr); }
  shardpb::Position log_start() const ABSL_LOCKS_EXCLUDED(mutex_);  // of the oldest change that the log still has
  // Whether the shard once had a change at this position and this store never will: it came back older, or the change
  // was discarded before it was acknowledged, and a later epoch began without it. Any thread.
  bool HasLost(const shardpb::Position& position) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Everything read at one snapshot fits together.
  std::shared_ptr<const Snapshot> TakeSnapshot() const { return rows_->TakeSnapshot(); }
  absl::StatusOr<std::optional<shardpb::DocumentRecord>> ReadDocument(uint32_t collection, std::string_view id,
                                                                      const Snapshot* at) const;
  // One an id, in order; nothing for rows that are gone.
  absl::StatusOr<std::vector<std::optional<shardpb::ChunkRecord>>> ReadChunks(uint32_t collection,
                                                                              std::span<const uint64_t> chunk_ids,
                                                                              const Snapshot* at) const;
  // As stored: half precision. Rows that are gone are an error.
  absl::StatusOr<std::vector<std::string>> ReadVectors(uint32_t collection, std::span<const uint64_t> chunk_ids,
                                                       const Snapshot* at) const;
  // The text of a document: its chunks' texts, one after the other.
  absl::StatusOr<std::string> ReadText(uint32_t collection, const shardpb::DocumentRecord& record,
                                       const Snapshot* at) const;

  // Documents in the order of (slot, id), beginning after `after` if given; the visitor returns false to stop.
  struct DocumentPlace {
    uint32_t slot;
    std::string id;
  };
  using DocumentVisitor = std::function<absl::StatusOr<bool>(uint32_t slot, const shardpb::DocumentRecord& record)>;
  absl::Status ScanDocuments(uint32_t collection, const std::optional<DocumentPlace>& after, const Snapshot* at,
                             const DocumentVisitor& visit) const;
  // The log after a position, in order; the visitor returns false to stop.
  using ChangeVisitor = std::function<absl::StatusOr<bool>(const shardpb::Change& change)>;
  absl::Status ScanLog(const shardpb::Position& after, const Snapshot* at, const ChangeVisitor& visit) const;

  // What a replica needs to carry out a change, rows included, in parts of `part_bytes_max`: the first has the change,
  // the others go on with its rows; one is larger if one row or the change itself is. Ends with the first error of
  // `visit`. `at`: a snapshot at which the log has the change.
  using PartVisitor = std::function<absl::Status(shardpb::PullChangesResponse part)>;
  absl::Status ReadReplicated(const shardpb::Change& change, const Snapshot* at, size_t part_bytes_max,
                              const PartVisitor& visit) const;
  // True if the log has the change of just this position, or if that is before the first one, which the log still has:
  // then what follows can be told.
  absl::StatusOr<bool> HasChange(const shardpb::Position& position, const Snapshot* at) const;
  // SHA-256 over all collections, documents and their chunks and vectors, in the order of their keys: equal on stores
  // that hold the same. Counts are of documents and of chunks.
  struct Digest {
    std::string sha256;  // 32 bytes
    shardpb::Position position;
    uint64_t documents = 0;
    uint64_t chunks = 0;
  };
  // Reads everything; ends when nobody waits for it any more.
  absl::StatusOr<Digest> ComputeDigest(const CallContext& context) const;
  // A consistent copy in a folder that must not exist; as KeyValueStore::Copy.
  absl::Status Copy(const std::string& folder, const std::function<absl::Status()>& go_on) const {
    return rows_->Copy(folder, go_on);
  }
  absl::Status Compact() { return rows_->Compact(); }
  void CancelCompaction() { rows_->CancelCompaction(); }

  uint64_t DiskBytes() const { return rows_->DiskBytes(); }
  KeyValueMemory Memory() const { return rows_->Memory(); }
  // True after a failed write until a write succeeds again.
  bool read_only() const ABSL_LOCKS_EXCLUDED(mutex_);

  // ------------------------------------------------------------ writing: the writer thread alone
  // Changes staged in a transaction are not seen by readers before Commit. One transaction at a time.
  Transaction Begin() const;
  // OK when all its changes are durable; otherwise none is visible. After a full disk writes are tried again by and by.
  absl::Status Commit(Transaction transaction);
  // If the log holds well more than log_changes_max, drops some of the oldest changes and the rows that they freed.
  // Call it after commits; each call does a bounded amount of work, and most do none.
  absl::Status TrimLog();
  // Drops some of what the log holds beyond its newest `changes` (at least 1), as TrimLog, but whether or not it holds
  // well more; true if there is more to drop.
  absl::StatusOr<bool> TrimLogTo(uint64_t changes);
  // Until then the log keeps this change and what comes after it, however many that are: `who` copies the store as it
  // was then. A later call for the same replaces this one. Any thread.
  using Clock = std::chrono::steady_clock;
  void KeepLog(const std::string& who, const shardpb::Position& from, Clock::time_point until)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // If the log is kept for `who`: it has come as far as this, and the rest is kept until then, but no longer than a day
  // after KeepLog: a replica that never catches up must not fill the disk. Any thread.
  void KeepLogOnFrom(const std::string& who, const shardpb::Position& from, Clock::time_point until)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class Transaction;

  // What every change moves on; in memory as of the last commit.
  struct Counters {
    uint64_t epoch = 1;
    uint64_t number = 0;  // of the newest change
    uint64_t next_chunk = 1;
    uint32_t next_collection = 0;
  };

  Store(const StoreOptions& options, std::unique_ptr<KeyValueStore> rows);
  absl::Status Load();
  absl::Status WriteIdentity();
  absl::Status ReadIdentity();
  absl::Status CheckIdentity() const;
  absl::Status LoadCounters();
  absl::Status CheckNothingIsMissing(const std::optional<shardpb::Position>& acknowledged) const;
  absl::Status LoadCollections();
  EpochStarts epoch_starts() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The oldest change that the log must keep if it is to have its newest `changes`.
  uint64_t KeepLogFrom(uint64_t changes) ABSL_LOCKS_EXCLUDED(mutex_);
  static void FreeRowsOf(const shardpb::Change& change, KeyValueBatch& batch);
  absl::StatusOr<std::string> ReadMeta(std::string_view key) const;
  absl::StatusOr<shardpb::Position> PositionAt(const Snapshot* at) const;
  absl::StatusOr<uint64_t> ReadMetaNumber(std::string_view key) const;
  // Chunks and vectors of a document, alternating, as they are stored.
  absl::Status HashRows(uint32_t collection, const shardpb::ChunkRange& chunks, const Snapshot* at,
                        const CallContext& context, Sha256& hasher) const;
  absl::Status Damaged(std::string_view what) const;
  absl::Status Write(const KeyValueBatch& batch);

  const StoreOptions options_;
  const std::unique_ptr<KeyValueStore> rows_;
  std::unique_ptr<AcknowledgedMark> mark_;
  StoreIdentity identity_;
  Counters counters_;  // the writer thread's

  mutable Mutex mutex_;
  std::vector<Collection> collections_ ABSL_GUARDED_BY(mutex_);
  shardpb::Position last_position_ ABSL_GUARDED_BY(mutex_);
  shardpb::Position log_start_ ABSL_GUARDED_BY(mutex_);
  EpochStarts epoch_starts_ ABSL_GUARDED_BY(mutex_);
  bool write_failed_ ABSL_GUARDED_BY(mutex_) = false;
  struct Kept {
    uint64_t from;
    Clock::time_point until, until_at_most;
  };
  std::map<std::string, Kept> kept_ ABSL_GUARDED_BY(mutex_);  // by who copies
};

// Changes that become durable together; sees its own. Made by Store::Begin, used on the writer thread.
class Transaction {
 public:
  Transaction(Transaction&&) = default;
  Transaction& operator=(Transaction&&) = default;

  // The document as this transaction leaves it.
  absl::StatusOr<std::optional<shardpb::DocumentRecord>> FindDocument(uint32_t collection, std::string_view id) const;

  // Creates or replaces a document with new rows, one a chunk of `change`, which must be whole and checked. Returns its
  // record.
  const shardpb::DocumentRecord& PutDocument(uint32_t collection, const shardpb::DocumentChange& change,
                                             const std::optional<shardpb::DocumentRecord>& old);
  // Replaces what is not text: rows and vectors stay. `change` needs neither text nor chunks.
  const shardpb::DocumentRecord& PutMetadata(uint32_t collection, const shardpb::DocumentChange& change,
                                             const shardpb::DocumentRecord& old);
  void RemoveDocument(uint32_t collection, const shardpb::DocumentRecord& old);
  // `spec.name` must be new. Returns the collection's number.
  uint32_t CreateCollection(const pb::CollectionSpec& spec);
  // With all that is in it; nothing of it may be touched by what follows in this transaction.
  void DropCollection(const Collection& collection);
  // Begins an epoch, which must be later than the one before.
  void StartEpoch(uint64_t epoch, const shardpb::EpochStart& start);
  // Carries out a change that the shard's primary made, as it made it; nothing of one that fails. FAILED_PRECONDITION:
  // BEHIND_LOG if it is not the next one, LAYOUT_UNKNOWN if it is of an unknown kind. DATA_LOSS (STORE_DAMAGED) if rows
  // are missing.
  absl::Status Replay(const shardpb::PullChangesResponse& replicated);

  // Of the newest change in it.
  shardpb::Position position() const;
  int changes() const { return changes_; }
  size_t bytes() const { return batch_.bytes(); }

 private:
  friend class Store;
  explicit Transaction(const Store& store);
  shardpb::Change NextChange(uint32_t collection);
  absl::Status CheckReplicated(const shardpb::PullChangesResponse& replicated) const;
  void ReplayPut(const shardpb::PullChangesResponse& replicated);
  void Log(const shardpb::Change& change);
  void NoteEpochStart(const shardpb::Position& start);
  void Bury(uint32_t collection, const shardpb::ChunkRange& rows, const shardpb::Position& position);
  void AddCollection(const Collection& collection);
  void RemoveCollection(uint32_t collection);
  shardpb::ChunkRange AddRows(uint32_t collection, const shardpb::DocumentChange& change);
  const shardpb::DocumentRecord& PutRecord(uint32_t collection, shardpb::DocumentRecord record, shardpb::Change change);

  const Store* store_;
  Store::Counters counters_;
  KeyValueBatch batch_;
  int changes_ = 0;
  std::optional<EpochStarts> epoch_starts_;                                             // if one begins in it
  absl::flat_hash_map<std::string, std::optional<shardpb::DocumentRecord>> documents_;  // by key, as this leaves them
  std::vector<Collection> new_collections_;
  std::vector<uint32_t> dropped_collections_;
};

}  // namespace retro
