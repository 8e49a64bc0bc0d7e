#include "retriever_service/store/key_value.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/checkpoint.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/base/error.h"
#include "common/base/heap.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/table_tail.h"

namespace retro {
namespace {

constexpr std::array<const char*, kFamilyCount> kFamilyNames = {"meta",    "collections", "documents", "chunks",
                                                                "vectors", "changes",     "tombstones"};
constexpr size_t kWriteBuffersDivisor = 3;              // the share of memory that write buffers have
constexpr uint64_t kLogBytesMax = uint64_t{256} << 20;  // of all write-ahead logs: bounds the time that replaying takes
constexpr double kBloomBitsPerKey = 10;
constexpr std::chrono::seconds kResumeEvery{5};
constexpr char kUnflushedKey[] = "unflushed";

rocksdb::Slice ToSlice(std::string_view text) { return {text.data(), text.size()}; }
std::string_view FromSlice(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

absl::Status FromRocks(const rocksdb::Status& status, const std::string& path) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  if (status.IsNoSpace() || (status.IsIOError() && status.subcode() == rocksdb::Status::kNoSpace)) {
    return Error(absl::StatusCode::kResourceExhausted, Reason::kReadOnly,
                 StrCat("the disk under ", path, " is full: free some space; reads go on meanwhile (", text, ")"));
  }
  if (status.IsCorruption()) {
    return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                 StrCat("the store in ", path, " is damaged: restore it from a snapshot or a replica (", text, ")"));
  }
  if (status.IsIOError() && text.find("/LOCK") != std::string::npos) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kStoreLocked,
                 StrCat("the store in ", path, " is in use by another process: stop that one or name another folder"));
  }
  return Error(absl::StatusCode::kInternal, Reason::kInternal, StrCat("the store in ", path, ": ", text));
}

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
  db.create_if_missing = true;
  db.create_missing_column_families = true;
  db.paranoid_checks = true;
  // A record cut short at the end of the log was never acknowledged, or so it seems: the caller must know what was. Any
  // other damage stops the start; the default mode would drop everything after a bad record in silence.
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  db.track_and_verify_wals_in_manifest = true;
  // So that a batch is in tables whole or not at all: what a log has lost is then missing in every family.
  db.atomic_flush = true;
  db.avoid_flush_during_shutdown = true;  // what is in no table is in a log, but for what KeepSomethingUnflushed writes
  db.max_total_wal_size = kLogBytesMax;
  db.write_buffer_manager =
      std::make_shared<rocksdb::WriteBufferManager>(options.memory_bytes / kWriteBuffersDivisor, cache);
  db.listeners.push_back(std::make_shared<GivesMemoryBack>());
  db.max_open_files = OpenFilesMax();
  db.max_background_jobs = 2;
  db.bytes_per_sync = 1 << 20;
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

std::string LogsIn(const std::string& path) {
  std::vector<std::string> logs;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    if (entry.path().extension() == ".log") logs.push_back(entry.path().string());
  }
  std::sort(logs.begin(), logs.end());
  return logs.empty() ? StrCat("none in ", path) : absl::StrJoin(logs, ", ");
}

// Families that this program does not know mean a newer layout.
absl::Status CheckFamilies(const rocksdb::DBOptions& options, const std::string& path) {
  std::vector<std::string> present;
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

struct KeyValueStore::Rocks {
  std::string path;
  std::string logs_found;
  std::shared_ptr<rocksdb::Cache> cache;
  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;  // families in order, then RocksDB's own default one

  ~Rocks() {
    for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
    if (db != nullptr) db->Close().PermitUncheckedError();
  }
  rocksdb::ColumnFamilyHandle* handle(Family family) const { return handles[static_cast<int>(family)]; }

  // Sees to it that something is in memory that is in no table yet: only then does RocksDB, resuming after a failed
  // write, begin a new log. Otherwise it would go on with the one in which a record was cut short, and that ends the
  // process. Memory that is full goes to tables with this write, not with the one after it, of a store's one writer.
  rocksdb::Status KeepSomethingUnflushed() const {
    rocksdb::WriteOptions options;
    options.disableWAL = true;
    return db->Put(options, handles.back(), kUnflushedKey, "");
  }
};

class KeyValueStore::Snapshot {
 public:
  explicit Snapshot(rocksdb::DB& db) : db_(db), snapshot_(db.GetSnapshot()) {}
  ~Snapshot() { db_.ReleaseSnapshot(snapshot_); }
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  static rocksdb::ReadOptions ReadAt(const Snapshot* snapshot) {
    rocksdb::ReadOptions options;
    options.verify_checksums = true;
    if (snapshot != nullptr) options.snapshot = snapshot->snapshot_;
    return options;
  }

 private:
  rocksdb::DB& db_;
  const rocksdb::Snapshot* snapshot_;
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

KeyValueStore::KeyValueStore(std::unique_ptr<Rocks> rocks) : rocks_(std::move(rocks)) {}
KeyValueStore::~KeyValueStore() = default;

absl::StatusOr<std::unique_ptr<KeyValueStore>> KeyValueStore::Open(const KeyValueOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(options.path, error);
  if (error) {
    return absl::FailedPreconditionError(
        StrCat("cannot make the folder ", options.path, ": ", error.message(), "; name one that can be written"));
  }
  return CatchAll(options.path, [&]() -> absl::StatusOr<std::unique_ptr<KeyValueStore>> {
    auto rocks = std::make_unique<Rocks>();
    rocks->path = options.path;
    rocks->cache = rocksdb::NewLRUCache(options.memory_bytes);
    rocks->logs_found = LogsIn(options.path);
    const rocksdb::DBOptions database_options = DatabaseOptions(options, rocks->cache);
    RETRO_RETURN_IF_ERROR(CheckFamilies(database_options, options.path));
    RETRO_RETURN_IF_ERROR(CheckTableTails(options.path));
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    families.reserve(kFamilyCount + 1);
    for (int i = 0; i < kFamilyCount; ++i) {
      families.emplace_back(kFamilyNames[i], FamilyOptions(static_cast<Family>(i), options, rocks->cache));
    }
    families.emplace_back(rocksdb::kDefaultColumnFamilyName, rocksdb::ColumnFamilyOptions());
    rocksdb::DB* db = nullptr;
    const rocksdb::Status status =
        options.read_only ? rocksdb::DB::OpenForReadOnly(database_options, options.path, families, &rocks->handles, &db)
                          : rocksdb::DB::Open(database_options, options.path, families, &rocks->handles, &db);
    rocks->db.reset(db);
    RETRO_RETURN_IF_ERROR(FromRocks(status, options.path));
    if (options.verify_tables) RETRO_RETURN_IF_ERROR(FromRocks(db->VerifyChecksum(), options.path));
    return std::unique_ptr<KeyValueStore>(new KeyValueStore(std::move(rocks)));
  });
}

std::shared_ptr<const KeyValueStore::Snapshot> KeyValueStore::TakeSnapshot() const {
  return std::make_shared<const Snapshot>(*rocks_->db);
}

absl::StatusOr<std::optional<std::string>> KeyValueStore::Get(Family family, std::string_view key,
                                                              const Snapshot* at) const {
  std::string value;
  const rocksdb::Status status = rocks_->db->Get(Snapshot::ReadAt(at), rocks_->handle(family), ToSlice(key), &value);
  if (status.IsNotFound()) return std::nullopt;
  RETRO_RETURN_IF_ERROR(FromRocks(status, rocks_->path));
  return value;
}

absl::StatusOr<std::vector<std::optional<std::string>>> KeyValueStore::MultiGet(Family family,
                                                                                std::span<const std::string> keys,
                                                                                const Snapshot* at) const {
  const std::vector<rocksdb::Slice> slices(keys.begin(), keys.end());
  std::vector<rocksdb::PinnableSlice> values(keys.size());
  std::vector<rocksdb::Status> statuses(keys.size());
  rocks_->db->MultiGet(Snapshot::ReadAt(at), rocks_->handle(family), keys.size(), slices.data(), values.data(),
                       statuses.data());
  std::vector<std::optional<std::string>> found(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    if (statuses[i].IsNotFound()) continue;
    RETRO_RETURN_IF_ERROR(FromRocks(statuses[i], rocks_->path));
    found[i] = values[i].ToString();
  }
  return found;
}

absl::Status KeyValueStore::Scan(Family family, std::string_view begin, std::string_view end, const Snapshot* at,
                                 bool fill_cache, const Visitor& visit) const {
  rocksdb::ReadOptions options = Snapshot::ReadAt(at);
  options.fill_cache = fill_cache;
  const rocksdb::Slice upper = ToSlice(end);
  if (!end.empty()) options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> it(rocks_->db->NewIterator(options, rocks_->handle(family)));
  for (it->Seek(ToSlice(begin)); it->Valid(); it->Next()) {
    RETRO_ASSIGN_OR_RETURN(const bool go_on, visit(FromSlice(it->key()), FromSlice(it->value())));
    if (!go_on) return absl::OkStatus();
  }
  return FromRocks(it->status(), rocks_->path);
}

absl::Status KeyValueStore::Write(const KeyValueBatch& batch) {
  return CatchAll(rocks_->path, [&]() -> absl::Status {
    rocksdb::WriteBatch writes(batch.bytes() + batch.operations_.size() * 16);
    for (const KeyValueBatch::Operation& operation : batch.operations_) {
      rocksdb::ColumnFamilyHandle* handle = rocks_->handle(operation.family);
      const rocksdb::Slice key = ToSlice(operation.key);
      rocksdb::Status added;
      if (operation.value.has_value()) {
        added = writes.Put(handle, key, ToSlice(*operation.value));
      } else if (operation.end.has_value()) {
        added = writes.DeleteRange(handle, key, ToSlice(*operation.end));
      } else {
        added = writes.Delete(handle, key);
      }
      RETRO_RETURN_IF_ERROR(FromRocks(added, rocks_->path));
    }
    rocksdb::WriteOptions options;
    options.sync = true;
    rocksdb::Status status = rocks_->KeepSomethingUnflushed();
    if (status.ok()) status = rocks_->db->Write(options, &writes);
    absl::Status error = FromRocks(status, rocks_->path);
    if (error.ok() || error.code() == absl::StatusCode::kResourceExhausted) return error;
    return Error(absl::StatusCode::kUnavailable, Reason::kWriteOutcomeUnknown,
                 StrCat("a write may or may not have happened, repeat it: ", MessageOf(error)));
  });
}

absl::Status KeyValueStore::Resume() {
  return CatchAll(rocks_->path, [&]() -> absl::Status {
    const rocksdb::Status status = rocks_->db->Resume();
    if (!status.IsBusy()) return FromRocks(status, rocks_->path);
    // RocksDB itself looks for free space every few seconds, and is at it.
    absl::Status busy =
        Error(absl::StatusCode::kResourceExhausted, Reason::kReadOnly,
              StrCat("the disk under ", rocks_->path,
                     " was full and writing has not resumed yet: free some space; reads go on meanwhile"));
    SetRetryAfter(busy, kResumeEvery);
    return busy;
  });
}

absl::Status KeyValueStore::Copy(const std::string& folder) const {
  return CatchAll(rocks_->path, [&]() -> absl::Status {
    rocksdb::Checkpoint* checkpoint = nullptr;
    RETRO_RETURN_IF_ERROR(FromRocks(rocksdb::Checkpoint::Create(rocks_->db.get(), &checkpoint), rocks_->path));
    const std::unique_ptr<rocksdb::Checkpoint> owned(checkpoint);
    return FromRocks(owned->CreateCheckpoint(folder), rocks_->path);  // flushes: the copy needs no log
  });
}

absl::Status KeyValueStore::Compact() {
  return CatchAll(rocks_->path, [&]() -> absl::Status {
    for (rocksdb::ColumnFamilyHandle* handle : rocks_->handles) {
      const rocksdb::Status status = rocks_->db->CompactRange(rocksdb::CompactRangeOptions(), handle, nullptr, nullptr);
      RETRO_RETURN_IF_ERROR(FromRocks(status, rocks_->path));
    }
    return absl::OkStatus();
  });
}

const std::string& KeyValueStore::logs_found() const { return rocks_->logs_found; }

KeyValueMemory KeyValueStore::Memory() const {
  const auto sum = [this](const std::string& property) {
    uint64_t value = 0;
    return rocks_->db->GetAggregatedIntProperty(property, &value) ? value : 0;
  };
  return {.cache = rocks_->cache->GetUsage(),
          .write_buffers = sum(rocksdb::DB::Properties::kSizeAllMemTables),
          .tables = sum(rocksdb::DB::Properties::kEstimateTableReadersMem)};
}

uint64_t KeyValueStore::DiskBytes() const {
  uint64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator it(rocks_->path, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code gone;  // files come and go while compactions run
    const uintmax_t size = it->is_regular_file(gone) ? it->file_size(gone) : 0;
    if (!gone) bytes += size;
  }
  return bytes;
}

}  // namespace retro
