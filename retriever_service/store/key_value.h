// An ordered key-value store with column families, atomic synced batches and snapshots. RocksDB behind key_value.cc,
// the only file that includes it; nothing here knows what keys and values mean (see layout.h).
//
// All functions may be called from any thread. RocksDB's failures become statuses that name the folder:
//   RESOURCE_EXHAUSTED (READ_ONLY)      the disk is full, or was when a write failed; nothing was done, and reads go on
//   DATA_LOSS (STORE_DAMAGED)           a file fails its checksum or is missing; the message names it
//   FAILED_PRECONDITION (STORE_LOCKED)  another process has the folder open
//   FAILED_PRECONDITION (LAYOUT_UNKNOWN) column families of another version of this program
//   UNAVAILABLE (WRITE_OUTCOME_UNKNOWN) a write failed midway and may show up after a restart
//   UNAVAILABLE (SHARD_UNAVAILABLE)     the database was opened anew (see Resume) while something was read for long
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/sync.h"

namespace retro {

// The column families; FORMAT.md says what each holds.
enum class Family { kMeta, kCollections, kDocuments, kChunks, kVectors, kChanges, kTombstones };
inline constexpr int kFamilyCount = 7;

struct KeyValueOptions {
  std::string path;  // a folder; made if missing
  // Cached blocks and write buffers together. The buffers are written to tables at a third of it, and push blocks out.
  size_t memory_bytes = size_t{96} << 20;
  bool verify_tables = true;  // read every table when opening, and compare its checksums
  bool read_only = false;     // nothing is written to the folder, which must be there
  // A store was opened in the folder before: if files that every one leaves are missing, that is an error, and none is
  // made anew.
  bool opened_before = false;
};

// Bytes of memory that a store uses beyond what its callers hold.
struct KeyValueMemory {
  uint64_t cache = 0;          // blocks kept after reading, and the write buffers' charge
  uint64_t write_buffers = 0;  // changes that are in the log and not yet in a table
  uint64_t tables = 0;         // what is kept of open tables outside the cache
};

// Puts and deletions that become visible and durable together.
class KeyValueBatch {
 public:
  void Put(Family family, std::string key, std::string value);
  void Delete(Family family, std::string key);
  // All keys with begin <= key < end, however many: it costs as much as one.
  void DeleteRange(Family family, std::string begin, std::string end);
  // Of keys and values so far.
  size_t bytes() const { return bytes_; }
  bool empty() const { return operations_.empty(); }

 private:
  friend class KeyValueStore;
  struct Operation {
    Family family;
    std::string key;
    std::optional<std::string> value;  // none: deletion
    std::optional<std::string> end;    // of a deletion: of all from `key` to before this
  };
  std::vector<Operation> operations_;
  size_t bytes_ = 0;
};

class KeyValueStore {
 public:
  class Snapshot;  // the store as it was; keeps old versions alive until released

  static absl::StatusOr<std::unique_ptr<KeyValueStore>> Open(const KeyValueOptions& options);
  ~KeyValueStore();
  KeyValueStore(const KeyValueStore&) = delete;
  KeyValueStore& operator=(const KeyValueStore&) = delete;

  // Must be released before the store is destroyed.
  std::shared_ptr<const Snapshot> TakeSnapshot() const;

  // `at` null: the newest state.
  absl::StatusOr<std::optional<std::string>> Get(Family family, std::string_view key, const Snapshot* at) const;
  // One a key, in the same order.
  absl::StatusOr<std::vector<std::optional<std::string>>> MultiGet(Family family, std::span<const std::string> keys,
                                                                   const Snapshot* at) const;

  // Called for each entry; the views are valid during the call. False stops the scan.
  using Visitor = std::function<absl::StatusOr<bool>(std::string_view key, std::string_view value)>;
  // Entries with begin <= key < end in the order of keys' bytes; empty `end`: to the last. `fill_cache` false for long
  // scans.
  absl::Status Scan(Family family, std::string_view begin, std::string_view end, const Snapshot* at, bool fill_cache,
                    const Visitor& visit) const;

  // The write-ahead logs that were there when it was opened, for messages about what is missing.
  const std::string& logs_found() const;

  // Returns OK when the batch is on disk. After a failure writes are refused until Resume succeeds.
  absl::Status Write(const KeyValueBatch& batch);
  // After a failed write: if there is room again, closes the database and opens it anew, so that a batch that found no
  // room in the log cannot come back. Short reads wait for that; scans end, and snapshots taken before cannot be read
  // any more (SHARD_UNAVAILABLE). OK: writes are possible again. After a log could not be synced, only a new process
  // can tell what is in it: then it stays READ_ONLY. After a compaction or anything else that met damage, the database
  // stays as it is, STORE_DAMAGED, and can be read.
  absl::Status Resume();

  // Makes a consistent copy of everything written so far in `folder`, which must not exist: of tables it has hard links
  // if that is on the same file system. Reading and writing go on meanwhile. `go_on` is asked often; its error ends it,
  // and leaves nothing.
  absl::Status Copy(
      const std::string& folder, const std::function<absl::Status()>& go_on = [] { return absl::OkStatus(); }) const;
  // Merges all tables, so that what was deleted gives its disk space back. CANCELLED (SHUTTING_DOWN) after
  // CancelCompaction.
  absl::Status Compact();
  // Ends those that run, and begins no other: the store is about to be closed.
  void CancelCompaction();

  // Bytes of all files.
  uint64_t DiskBytes() const;
  KeyValueMemory Memory() const;

 private:
  struct Rocks;
  struct GiveBack {
    const KeyValueStore* store;
    void operator()(Rocks* rocks) const;
  };
  using Lease = std::unique_ptr<Rocks, GiveBack>;  // while there is one the database stays open

  KeyValueStore(const KeyValueOptions& options, std::string logs_found, std::unique_ptr<Rocks> rocks);
  absl::StatusOr<Lease> Use() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits for those who use the database, not for long, and closes it. While `leaving_` nobody begins to use it.
  absl::Status Close() ABSL_EXCLUSIVE_LOCKS_REQUIRED(resuming_) ABSL_LOCKS_EXCLUDED(mutex_);

  const KeyValueOptions options_;
  const std::string logs_found_;
  Mutex resuming_;  // held by who opens the database anew; before mutex_
  std::chrono::steady_clock::time_point next_closing_ ABSL_GUARDED_BY(resuming_);  // not before
  mutable Mutex mutex_;
  mutable CondVar changed_;
  std::unique_ptr<Rocks> rocks_ ABSL_GUARDED_BY(mutex_);  // null: closed, and `closed_` says why
  absl::Status closed_ ABSL_GUARDED_BY(mutex_);
  bool leaving_ ABSL_GUARDED_BY(mutex_) = false;
  mutable int leases_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace retro
