#include "retriever_service/store/key_value.h"

#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/base/error.h"
#include "common/base/heap.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/database_files.h"
#include "retriever_service/store/disk_room.h"
#include "retriever_service/store/file_copies.h"
#include "retriever_service/store/rocks_errors.h"
#include "retriever_service/store/table_tail.h"

namespace retro {
namespace {

constexpr std::array<const char*, kFamilyCount> kFamilyNames = {"meta",    "collections", "documents", "chunks",
                                                                "vectors", "changes",     "tombstones"};
constexpr size_t kWriteBuffersDivisor = 3;              // the share of memory that write buffers have
constexpr uint64_t kLogBytesMax = uint64_t{256} << 20;  // of all write-ahead logs: bounds the time that replaying takes
constexpr double kBloomBitsPerKey = 10;
constexpr std::chrono::seconds kLeaveMax{2};          // for whoever uses a database that is to be closed
constexpr std::chrono::seconds kLeaveAgainAfter{10};  // if somebody did for longer: nobody else can read meanwhile

thread_local int leases_of_this_thread = 0;

rocksdb::Slice ToSlice(std::string_view text) { return {text.data(), text.size()}; }
std::string_view FromSlice(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

// RocksDB reports errors by status; the standard library beneath it throws when memory runs out or a path is odd.
template <typename Function>
auto CatchAll(const std::string& path, Function&& function) -> decltype(function()) {
  try {
    return function();
  } catch (const std::exception& error) {
    return Error(absl::StatusCode::kInternal, Reason::kInternal, StrCat("the store in ", path, ": ", error.what()));
  }
}

// Write buffers are many megabytes that come and go, with small things that stay between them.
class GivesMemoryBack : public rocksdb::EventListener {
 public:
  void OnFlushCompleted(rocksdb::DB*, const rocksdb::FlushJobInfo&) override { GiveFreedMemoryBack(); }
};

// Keeps what stopped a database for writing. It is not resumed by RocksDB itself: with atomic flushes, 7.8 loses sight
// of memory whose flush ended well while something else failed for want of space, and its recovery then waits for that
// for ever, as does whoever closes it.
class StopsForGood : public rocksdb::EventListener {
 public:
  void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* error) override {
    if (error->severity() < rocksdb::Status::Severity::kHardError) return;  // a compaction, which is tried again
    const MutexLock lock(mutex_);
    if (error_.ok()) error_ = *error;
  }
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status, bool* auto_recovery) override {
    *auto_recovery = false;
  }
  rocksdb::Status error() const {
    const MutexLock lock(mutex_);
    return error_;
  }

 private:
  mutable Mutex mutex_;
  rocksdb::Status error_ ABSL_GUARDED_BY(mutex_);
};

// RocksDB's warnings go into our log. A file of its own would end the process on a full disk: Debian's build asserts
// that nothing is written to a file that could not be written before, and its log does not heed that.
class RocksLog : public rocksdb::Logger {
 public:
  RocksLog() : Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using Logger::Logv;
  void LogHeader(const char* /*format*/, va_list /*values*/) override {}
  void Logv(rocksdb::InfoLogLevel level, const char* format, va_list values) override {
    if (level < GetInfoLogLevel() || level == rocksdb::InfoLogLevel::HEADER_LEVEL) return;
    std::array<char, 1024> text{};
    std::vsnprintf(text.data(), text.size(), format, values);
    std::replace(text.begin(), text.end(), '\n', ' ');
    spdlog::log(level == rocksdb::InfoLogLevel::WARN_LEVEL ? spdlog::level::warn : spdlog::level::err, "rocksdb: {}",
                text.data());
  }
};

// Half of what the process may open: an open table takes little memory, and opening one anew several reads.
int OpenFilesMax() {
  constexpr rlim_t kLeast = 128, kMost = 16'384;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return kLeast;
  return static_cast<int>(std::clamp(limit.rlim_cur / 2, kLeast, kMost));
}

rocksdb::DBOptions DatabaseOptions(const KeyValueOptions& options, const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::DBOptions db;
  db.create_missing_column_families = true;
  db.paranoid_checks = true;
  // A record cut short at the end of the log was never acknowledged, or so it seems: the caller must know what was. Any
  // other damage stops the start; the default mode would drop everything after a bad record in silence.
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  db.track_and_verify_wals_in_manifest = true;
  // So that a batch is in tables whole or not at all: what a log has lost is then missing in every family.
  db.atomic_flush = true;
  db.avoid_flush_during_shutdown = true;  // what is in no table is in a log
  db.max_total_wal_size = kLogBytesMax;
  db.write_buffer_manager =
      std::make_shared<rocksdb::WriteBufferManager>(options.memory_bytes / kWriteBuffersDivisor, cache);
  db.max_bgerror_resume_count = 0;  // see StopsForGood
  db.listeners.push_back(std::make_shared<GivesMemoryBack>());
  db.max_open_files = OpenFilesMax();
  db.max_background_jobs = 2;
  // What is written in the background waits for the disk as it goes, so that a log's sync does not wait for all of it.
  db.bytes_per_sync = 1 << 20;
  db.strict_bytes_per_sync = true;
  db.info_log = std::make_shared<RocksLog>();
  return db;
}

rocksdb::ColumnFamilyOptions FamilyOptions(Family family, const KeyValueOptions& options,
                                           const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  // A table's index and filter are larger than the cache where a store is large: a read takes just the part it needs.
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;
  table.metadata_block_size = 4 << 10;
  table.block_size = 16 << 10;
  table.checksum = rocksdb::ChecksumType::kXXH3;
  table.format_version = 5;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kBloomBitsPerKey));
  rocksdb::ColumnFamilyOptions column;
  column.write_buffer_size = options.memory_bytes / kWriteBuffersDivisor;  // all together are held to that
  column.level_compaction_dynamic_level_bytes = true;
  // Half-precision vectors do not shrink.
  column.compression = family == Family::kVectors ? rocksdb::kNoCompression : rocksdb::kZSTD;
  column.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return column;
}

// Families that this program does not know mean a newer layout.
absl::Status CheckFamilies(const std::string& path) {
  std::vector<std::string> present;
  rocksdb::DBOptions options;
  options.info_log = std::make_shared<RocksLog>();
  const rocksdb::Status status = rocksdb::DB::ListColumnFamilies(options, path, &present);
  if (!status.ok()) return absl::OkStatus();  // nothing there yet, or damaged: opening will tell
  for (const std::string& name : present) {
    const bool known = name == rocksdb::kDefaultColumnFamilyName ||
                       std::find(kFamilyNames.begin(), kFamilyNames.end(), name) != kFamilyNames.end();
    if (known) continue;
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kLayoutUnknown,
                 StrCat("the store in ", path, " has a column family \"", name,
                        "\" that this version does not know: use the version that wrote it"));
  }
  return absl::OkStatus();
}

}  // namespace

// An open database.
struct KeyValueStore::Rocks {
  // What a write that failed has left, after which there is no other.
  enum class Failure { kNone, kNothingDone, kOutcomeUnknown };

  static absl::StatusOr<std::unique_ptr<Rocks>> Open(const KeyValueOptions& options, bool read_only);
  ~Rocks();

  rocksdb::ColumnFamilyHandle* handle(Family family) const { return handles[static_cast<int>(family)]; }
  // Why nothing can be written any more.
  absl::Status CheckWritable() const;

  const rocksdb::Snapshot* TakeSnapshot() {
    const MutexLock lock(mutex);
    return *snapshots.insert(db->GetSnapshot()).first;
  }
  void Release(const rocksdb::Snapshot* snapshot) {
    const MutexLock lock(mutex);
    snapshots.erase(snapshot);
    db->ReleaseSnapshot(snapshot);
  }

  std::string path;
  uint64_t generation = 0;  // differs from those of earlier ones
  bool read_only = false;
  absl::Status not_opened_to_write;  // why it was opened to be read alone
  std::shared_ptr<StopsForGood> stopped;
  std::atomic<Failure> failure = Failure::kNone;
  std::atomic<bool> leaving = false;  // it is to be closed: what lasts long ends
  std::shared_ptr<rocksdb::Cache> cache;
  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;  // families in order, then RocksDB's own default one
  Mutex mutex;
  std::set<const rocksdb::Snapshot*> snapshots ABSL_GUARDED_BY(mutex);
};

absl::StatusOr<std::unique_ptr<KeyValueStore::Rocks>> KeyValueStore::Rocks::Open(const KeyValueOptions& options,
                                                                                 bool read_only) {
  return CatchAll(options.path, [&]() -> absl::StatusOr<std::unique_ptr<Rocks>> {
    static std::atomic<uint64_t> generations = 0;
    auto rocks = std::make_unique<Rocks>();
    rocks->path = options.path;
    rocks->generation = ++generations;
    rocks->read_only = read_only;
    rocks->stopped = std::make_shared<StopsForGood>();
    rocks->cache = rocksdb::NewLRUCache(options.memory_bytes);
    rocksdb::DBOptions database_options = DatabaseOptions(options, rocks->cache);
    RETRO_ASSIGN_OR_RETURN(const bool exists, FindDatabase(options.path, options.opened_before && !read_only));
    database_options.create_if_missing = !exists;
    database_options.listeners.push_back(rocks->stopped);
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    families.reserve(kFamilyCount + 1);
    for (int i = 0; i < kFamilyCount; ++i) {
      families.emplace_back(kFamilyNames[i], FamilyOptions(static_cast<Family>(i), options, rocks->cache));
    }
    families.emplace_back(rocksdb::kDefaultColumnFamilyName, rocksdb::ColumnFamilyOptions());
    rocksdb::DB* db = nullptr;
    const rocksdb::Status status =
        read_only ? rocksdb::DB::OpenForReadOnly(database_options, options.path, families, &rocks->handles, &db)
                  : rocksdb::DB::Open(database_options, options.path, families, &rocks->handles, &db);
    rocks->db.reset(db);
    RETRO_RETURN_IF_ERROR(FromRocks(status, options.path));
    return rocks;
  });
}

KeyValueStore::Rocks::~Rocks() {
  if (db == nullptr) return;
  rocksdb::CancelAllBackgroundWork(db.get(), /*wait=*/false);  // what waits for a flush that will not come ends
  {
    const MutexLock lock(mutex);
    for (const rocksdb::Snapshot* snapshot : snapshots) db->ReleaseSnapshot(snapshot);
  }
  for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  db->Close().PermitUncheckedError();
}

absl::Status KeyValueStore::Rocks::CheckWritable() const {
  const rocksdb::Status error = stopped->error();
  if (IsDamage(error)) return FromRocks(error, path);
  if (absl::IsDataLoss(not_opened_to_write)) return not_opened_to_write;
  if (failure == Failure::kOutcomeUnknown) {
    return ReadOnlyError(StrCat("the log of the store in ", path,
                                " could not be written to its end, and nobody knows what the disk has of it: start the "
                                "process again, which reads that; reads go on meanwhile"));
  }
  if (failure == Failure::kNone && error.ok() && !read_only) return absl::OkStatus();
  const std::string_view why = IsNoSpace(error) || error.ok() ? "was full" : "could not be written";
  return ReadOnlyError(StrCat("the disk under ", path, " ", why,
                              " and writing has not resumed yet: see that it can be written; reads go on meanwhile",
                              error.ok() ? "" : StrCat(" (", error.ToString(), ")")));
}

class KeyValueStore::Snapshot {
 public:
  explicit Snapshot(const KeyValueStore& store) : store_(store) {
    const auto rocks = store.Use();
    if (!rocks.ok()) return;  // nothing can be read at it
    generation_ = (*rocks)->generation;
    snapshot_ = (*rocks)->TakeSnapshot();
  }
  ~Snapshot() {
    const MutexLock lock(store_.mutex_);
    if (store_.rocks_ != nullptr && store_.rocks_->generation == generation_) store_.rocks_->Release(snapshot_);
  }
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  // How `rocks` is read as it was at a snapshot, or as it is.
  static absl::StatusOr<rocksdb::ReadOptions> ReadAt(const Rocks& rocks, const Snapshot* at) {
    rocksdb::ReadOptions options;
    options.verify_checksums = true;
    if (at == nullptr) return options;
    if (at->generation_ != rocks.generation) return OpenedAnewError(rocks.path);
    options.snapshot = at->snapshot_;
    return options;
  }

 private:
  const KeyValueStore& store_;
  uint64_t generation_ = 0;
  const rocksdb::Snapshot* snapshot_ = nullptr;
};

void KeyValueBatch::Put(Family family, std::string key, std::string value) {
  bytes_ += key.size() + value.size();
  operations_.push_back({family, std::move(key), std::move(value), std::nullopt});
}

void KeyValueBatch::Delete(Family family, std::string key) {
  bytes_ += key.size();
  operations_.push_back({family, std::move(key), std::nullopt, std::nullopt});
}

void KeyValueBatch::DeleteRange(Family family, std::string begin, std::string end) {
  bytes_ += begin.size() + end.size();
  operations_.push_back({family, std::move(begin), std::nullopt, std::move(end)});
}

// ---------------------------------------------------------------- opening, once and anew

KeyValueStore::KeyValueStore(const KeyValueOptions& options, std::string logs_found, std::unique_ptr<Rocks> rocks)
    : options_(options), logs_found_(std::move(logs_found)), rocks_(std::move(rocks)) {}
KeyValueStore::~KeyValueStore() = default;

absl::StatusOr<std::unique_ptr<KeyValueStore>> KeyValueStore::Open(const KeyValueOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(options.path, error);
  if (error) {
    return absl::FailedPreconditionError(
        StrCat("cannot make the folder ", options.path, ": ", error.message(), "; name one that can be written"));
  }
  return CatchAll(options.path, [&]() -> absl::StatusOr<std::unique_ptr<KeyValueStore>> {
    std::string logs_found = LogsIn(options.path);
    RETRO_RETURN_IF_ERROR(CheckFamilies(options.path));
    RETRO_RETURN_IF_ERROR(CheckTableTails(options.path));
    RETRO_ASSIGN_OR_RETURN(auto rocks, Rocks::Open(options, options.read_only));
    if (options.verify_tables) RETRO_RETURN_IF_ERROR(FromRocks(rocks->db->VerifyChecksum(), options.path));
    KeyValueOptions from_now_on = options;
    from_now_on.opened_before = true;
    return std::unique_ptr<KeyValueStore>(new KeyValueStore(from_now_on, std::move(logs_found), std::move(rocks)));
  });
}

// Whoever waited for a lease while he holds another would wait for himself.
absl::StatusOr<KeyValueStore::Lease> KeyValueStore::Use() const {
  const MutexLock lock(mutex_);
  while (leaving_) {
    if (leases_of_this_thread > 0) return OpenedAnewError(options_.path);
    changed_.Wait(mutex_);
  }
  if (rocks_ == nullptr) return closed_;
  ++leases_;
  ++leases_of_this_thread;
  return Lease(rocks_.get(), GiveBack{this});
}

void KeyValueStore::GiveBack::operator()(Rocks* /*rocks*/) const {
  --leases_of_this_thread;
  const MutexLock lock(store->mutex_);
  if (--store->leases_ == 0) store->changed_.NotifyAll();
}

absl::Status KeyValueStore::Resume() {
  const MutexLock one(resuming_);
  {
    const auto rocks = Use();
    const absl::Status writable = rocks.ok() ? (*rocks)->CheckWritable() : rocks.status();
    const bool unknown = rocks.ok() && (*rocks)->failure == Rocks::Failure::kOutcomeUnknown;
    if (writable.ok() || unknown || absl::IsDataLoss(writable)) return writable;  // opening it anew mends no damage
  }
  RETRO_RETURN_IF_ERROR(CheckRoom(options_.path));
  RETRO_RETURN_IF_ERROR(FindDatabase(options_.path, options_.opened_before).status());  // while it can be read still
  RETRO_RETURN_IF_ERROR(Close());
  auto opened = Rocks::Open(options_, /*read_only=*/false);
  absl::Status status = opened.status();
  if (!opened.ok()) opened = Rocks::Open(options_, /*read_only=*/true);
  if (opened.ok()) (*opened)->not_opened_to_write = status;
  const MutexLock lock(mutex_);
  if (opened.ok()) {
    rocks_ = *std::move(opened);
  } else {
    closed_ = opened.status();
  }
  leaving_ = false;
  changed_.NotifyAll();
  return status;
}

absl::Status KeyValueStore::Close() {
  Rocks* rocks = nullptr;
  {
    const MutexLock lock(mutex_);
    if (leases_ > 0 && std::chrono::steady_clock::now() < next_closing_) return BusyWithReadersError(options_.path);
    leaving_ = true;
    rocks = rocks_.get();
  }
  if (rocks == nullptr) return absl::OkStatus();
  rocks->leaving = true;
  rocks->db->DisableManualCompaction();
  std::unique_ptr<Rocks> closed;
  const MutexLock lock(mutex_);
  const auto end = std::chrono::steady_clock::now() + kLeaveMax;
  while (leases_ > 0) {
    if (changed_.WaitUntil(mutex_, end)) continue;
    rocks->db->EnableManualCompaction();
    rocks->leaving = leaving_ = false;
    changed_.NotifyAll();
    next_closing_ = std::chrono::steady_clock::now() + kLeaveAgainAfter;
    return BusyWithReadersError(options_.path);
  }
  closed = std::move(rocks_);
  return absl::OkStatus();
}

// ---------------------------------------------------------------- reading

std::shared_ptr<const KeyValueStore::Snapshot> KeyValueStore::TakeSnapshot() const {
  return std::make_shared<const Snapshot>(*this);
}

absl::StatusOr<std::optional<std::string>> KeyValueStore::Get(Family family, std::string_view key,
                                                              const Snapshot* at) const {
  RETRO_ASSIGN_OR_RETURN(const Lease rocks, Use());
  RETRO_ASSIGN_OR_RETURN(const rocksdb::ReadOptions options, Snapshot::ReadAt(*rocks, at));
  std::string value;
  const rocksdb::Status status = rocks->db->Get(options, rocks->handle(family), ToSlice(key), &value);
  if (status.IsNotFound()) return std::nullopt;
  RETRO_RETURN_IF_ERROR(FromRocks(status, rocks->path));
  return value;
}

absl::StatusOr<std::vector<std::optional<std::string>>> KeyValueStore::MultiGet(Family family,
                                                                                std::span<const std::string> keys,
                                                                                const Snapshot* at) const {
  RETRO_ASSIGN_OR_RETURN(const Lease rocks, Use());
  RETRO_ASSIGN_OR_RETURN(const rocksdb::ReadOptions options, Snapshot::ReadAt(*rocks, at));
  const std::vector<rocksdb::Slice> slices(keys.begin(), keys.end());
  std::vector<rocksdb::PinnableSlice> values(keys.size());
  std::vector<rocksdb::Status> statuses(keys.size());
  rocks->db->MultiGet(options, rocks->handle(family), keys.size(), slices.data(), values.data(), statuses.data());
  std::vector<std::optional<std::string>> found(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    if (statuses[i].IsNotFound()) continue;
    RETRO_RETURN_IF_ERROR(FromRocks(statuses[i], rocks->path));
    found[i] = values[i].ToString();
  }
  return found;
}

absl::Status KeyValueStore::Scan(Family family, std::string_view begin, std::string_view end, const Snapshot* at,
                                 bool fill_cache, const Visitor& visit) const {
  RETRO_ASSIGN_OR_RETURN(const Lease rocks, Use());
  RETRO_ASSIGN_OR_RETURN(rocksdb::ReadOptions options, Snapshot::ReadAt(*rocks, at));
  options.fill_cache = fill_cache;
  const rocksdb::Slice upper = ToSlice(end);
  if (!end.empty()) options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> it(rocks->db->NewIterator(options, rocks->handle(family)));
  for (it->Seek(ToSlice(begin)); it->Valid(); it->Next()) {
    if (rocks->leaving) return OpenedAnewError(rocks->path);
    RETRO_ASSIGN_OR_RETURN(const bool go_on, visit(FromSlice(it->key()), FromSlice(it->value())));
    if (!go_on) return absl::OkStatus();
  }
  return FromRocks(it->status(), rocks->path);
}

// ---------------------------------------------------------------- writing

absl::Status KeyValueStore::Write(const KeyValueBatch& batch) {
  return CatchAll(options_.path, [&]() -> absl::Status {
    RETRO_ASSIGN_OR_RETURN(const Lease rocks, Use());
    RETRO_RETURN_IF_ERROR(rocks->CheckWritable());
    rocksdb::WriteBatch writes(batch.bytes() + batch.operations_.size() * 16);
    for (const KeyValueBatch::Operation& operation : batch.operations_) {
      rocksdb::ColumnFamilyHandle* handle = rocks->handle(operation.family);
      const rocksdb::Slice key = ToSlice(operation.key);
      rocksdb::Status added;
      if (operation.value.has_value()) {
        added = writes.Put(handle, key, ToSlice(*operation.value));
      } else if (operation.end.has_value()) {
        added = writes.DeleteRange(handle, key, ToSlice(*operation.end));
      } else {
        added = writes.Delete(handle, key);
      }
      RETRO_RETURN_IF_ERROR(FromRocks(added, rocks->path));
    }
    rocksdb::WriteOptions options;
    options.sync = true;
    rocksdb::Status status;
    try {
      status = rocks->db->Write(options, &writes);
    } catch (const std::exception& error) {
      status = rocksdb::Status::Aborted(error.what());
    }
    if (status.ok()) return absl::OkStatus();
    absl::Status error = FromRocks(status, rocks->path);
    if (DidNothing(status)) {
      rocks->failure = Rocks::Failure::kNothingDone;
      return error;
    }
    rocks->failure = Rocks::Failure::kOutcomeUnknown;
    return Error(absl::StatusCode::kUnavailable, Reason::kWriteOutcomeUnknown,
                 StrCat("a write may or may not have happened, repeat it: ", MessageOf(error)));
  });
}

absl::Status KeyValueStore::Copy(const std::string& folder, const std::function<absl::Status()>& go_on) const {
  return CatchAll(options_.path, [&]() -> absl::Status {
    RETRO_ASSIGN_OR_RETURN(const Lease rocks, Use());
    RETRO_RETURN_IF_ERROR(rocks->CheckWritable());
    RETRO_RETURN_IF_ERROR(FromRocks(rocks->db->DisableFileDeletions(), rocks->path));
    const absl::Cleanup enable = [&rocks] { rocks->db->EnableFileDeletions(/*force=*/false).PermitUncheckedError(); };
    std::vector<rocksdb::LiveFileStorageInfo> live;
    // Flushes: the copy needs no log.
    RETRO_RETURN_IF_ERROR(FromRocks(rocks->db->GetLiveFilesStorageInfo({}, &live), rocks->path));
    std::vector<FileToCopy> files;
    files.reserve(live.size());
    for (const rocksdb::LiveFileStorageInfo& file : live) {
      files.push_back({.path = StrCat(file.directory, "/", file.relative_filename),
                       .name = file.relative_filename,
                       .bytes = file.size,
                       .may_grow = file.trim_to_size,
                       .content = file.replacement_contents});
    }
    return CopyFiles(std::move(files), folder, [&]() -> absl::Status {
      if (rocks->leaving) return OpenedAnewError(rocks->path);
      return go_on();
    });
  });
}

absl::Status KeyValueStore::Compact() {
  return CatchAll(options_.path, [&]() -> absl::Status {
    RETRO_ASSIGN_OR_RETURN(const Lease rocks, Use());
    RETRO_RETURN_IF_ERROR(rocks->CheckWritable());
    for (rocksdb::ColumnFamilyHandle* handle : rocks->handles) {
      const rocksdb::Status status = rocks->db->CompactRange(rocksdb::CompactRangeOptions(), handle, nullptr, nullptr);
      if (status.IsManualCompactionPaused()) {
        if (rocks->leaving) return OpenedAnewError(rocks->path);
        return Error(absl::StatusCode::kCancelled, Reason::kShuttingDown,
                     "the store is being closed: the server stops, or its replica takes a copy of another's store");
      }
      RETRO_RETURN_IF_ERROR(FromRocks(status, rocks->path));
    }
    return absl::OkStatus();
  });
}

void KeyValueStore::CancelCompaction() {
  if (const auto rocks = Use(); rocks.ok()) (*rocks)->db->DisableManualCompaction();
}

// ---------------------------------------------------------------- figures

const std::string& KeyValueStore::logs_found() const { return logs_found_; }

KeyValueMemory KeyValueStore::Memory() const {
  const auto rocks = Use();
  if (!rocks.ok()) return {};
  const auto sum = [&rocks](const std::string& property) {
    uint64_t value = 0;
    return (*rocks)->db->GetAggregatedIntProperty(property, &value) ? value : 0;
  };
  return {.cache = (*rocks)->cache->GetUsage(),
          .write_buffers = sum(rocksdb::DB::Properties::kSizeAllMemTables),
          .tables = sum(rocksdb::DB::Properties::kEstimateTableReadersMem)};
}

uint64_t KeyValueStore::DiskBytes() const { return BytesIn(options_.path); }

}  // namespace retro
