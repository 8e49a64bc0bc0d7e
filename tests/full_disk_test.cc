// A store whose disk is full for a while: writes are refused and reads go on; once there is room again it goes on, and
// what was refused never comes back. The disk is full when this file's write() says so.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "retriever_service/store/key_value.h"
#include "tests/temporary_folder.h"

namespace {

std::atomic<bool> disk_is_full = false;

std::string PathOf(int descriptor) {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), error).string();
}

bool IsLog(const std::string& path) { return path.ends_with(".log"); }
bool IsTable(const std::string& path) { return path.ends_with(".sst"); }

std::atomic<bool> tables_are_held = false;  // they wait, and find no room afterwards
std::atomic<int> tables_that_waited = 0;

bool HasWaited(int descriptor) {
  if (!tables_are_held || !IsTable(PathOf(descriptor))) return false;
  ++tables_that_waited;
  while (tables_are_held) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return true;
}

std::atomic<bool> writes_are_bounded = false;
std::atomic<int> writes_left = 0;  // to any file of a store until its disk is full

bool IsPastTheLast(int descriptor) {
  if (!writes_are_bounded) return false;
  return PathOf(descriptor).find("/store/") != std::string::npos && writes_left.fetch_sub(1) <= 0;
}

std::atomic<bool> tables_find_no_room = false;  // what is written to the log does

bool FindsNoRoom(int descriptor) {
  if (!disk_is_full && !tables_find_no_room) return false;
  const std::string path = PathOf(descriptor);
  return IsTable(path) || (disk_is_full && IsLog(path));
}

std::atomic<bool> no_log_can_be_made = false;

std::atomic<bool> disk_is_said_to_be_full = false;
std::atomic<int> times_room_was_taken = 0;  // to see whether it is there

std::atomic<bool> logs_cannot_be_synced = false;
std::atomic<int> syncs_of_logs = 0;

}  // namespace

extern "C" ssize_t write(int descriptor, const void* data, size_t size) {
  if (FindsNoRoom(descriptor) || HasWaited(descriptor) || IsPastTheLast(descriptor)) {
    errno = ENOSPC;
    return -1;
  }
  return syscall(SYS_write, descriptor, data, size);
}

extern "C" int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
    if (no_log_can_be_made && IsLog(path)) {
      errno = ENOSPC;
      return -1;
    }
  }
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

extern "C" int statvfs(const char* path, struct statvfs* space) {
  struct statfs all {};
  if (syscall(SYS_statfs, path, &all) != 0) return -1;
  std::memset(space, 0, sizeof(*space));
  space->f_bsize = space->f_frsize = static_cast<unsigned long>(all.f_bsize);
  space->f_blocks = all.f_blocks;
  space->f_bfree = all.f_bfree;
  space->f_bavail = disk_is_said_to_be_full ? 0 : all.f_bavail;
  return 0;
}

extern "C" int posix_fallocate(int descriptor, off_t begin, off_t size) {
  if (PathOf(descriptor).find("/room") != std::string::npos) ++times_room_was_taken;
  if (disk_is_full) return ENOSPC;
  return syscall(SYS_fallocate, descriptor, 0, begin, size) == 0 ? 0 : errno;
}

extern "C" int fdatasync(int descriptor) {
  if (IsLog(PathOf(descriptor))) {
    if (logs_cannot_be_synced) {
      errno = ENOSPC;
      return -1;
    }
    ++syncs_of_logs;
  }
  return static_cast<int>(syscall(SYS_fdatasync, descriptor));
}

namespace retro {
namespace {

constexpr std::chrono::seconds kWaitMax{60};
constexpr size_t kMemoryBytes = size_t{8} << 20;

class FullDiskTest : public testing::Test {
 protected:
  FullDiskTest() {
    tables_that_waited = 0;
    Open();
  }
  ~FullDiskTest() override {
    disk_is_full = writes_are_bounded = tables_are_held = logs_cannot_be_synced = false;
    tables_find_no_room = no_log_can_be_made = disk_is_said_to_be_full = false;
  }

  void Open() {
    store_.reset();
    auto store = KeyValueStore::Open({.path = folder_ / "store", .memory_bytes = kMemoryBytes});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  absl::Status Put(const std::string& key, size_t bytes = 5) {
    KeyValueBatch batch;
    batch.Put(Family::kMeta, key, std::string(bytes, 'v'));
    return store_->Write(batch);
  }
  bool Has(const std::string& key) { return store_->Get(Family::kMeta, key, nullptr)->has_value(); }
  void Resume() {
    disk_is_full = false;
    const absl::Status resumed = store_->Resume();
    ASSERT_TRUE(resumed.ok()) << resumed;
  }
  template <typename Condition>
  static void WaitUntil(const Condition& holds) {
    const auto end = std::chrono::steady_clock::now() + kWaitMax;
    while (!holds()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void ExpectRefused(const std::string& key) {
    const absl::Status status = Put(key);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(ReasonOf(status), Reason::kReadOnly) << status;
  }

  // Until memory has been full, and its table or the next log met what `fault` sets.
  void ExpectThatWhatEmptiesMemoryRefusesAndThenGoesOn(std::atomic<bool>& fault) {
    constexpr int kWritesMax = 256;
    ASSERT_TRUE(Put("before").ok());
    fault = true;
    std::vector<std::string> written;
    absl::Status status;
    while (status.ok()) {
      ASSERT_LT(written.size(), kWritesMax) << "nothing met the full disk";
      written.push_back(StrCat("large ", written.size()));
      status = Put(written.back(), kMemoryBytes / 16);
    }
    EXPECT_EQ(ReasonOf(status), Reason::kReadOnly) << status;
    const std::string refused = written.back();
    written.pop_back();
    for (const std::string& key : written) EXPECT_TRUE(Has(key)) << key;
    EXPECT_FALSE(Has(refused));
    fault = false;
    Resume();
    EXPECT_TRUE(Put("after").ok());
    Open();
    written.insert(written.end(), {"before", "after"});
    for (const std::string& key : written) EXPECT_TRUE(Has(key)) << key;
    EXPECT_FALSE(Has(refused));
  }

  TemporaryFolder folder_;
  std::unique_ptr<KeyValueStore> store_;
};

TEST_F(FullDiskTest, WritesGoOnOnceThereIsRoom) {
  ASSERT_TRUE(Put("before").ok());
  disk_is_full = true;
  ExpectRefused("refused");
  EXPECT_TRUE(Has("before"));
  Resume();
  EXPECT_TRUE(Put("after").ok());
  Open();
  EXPECT_TRUE(Has("before"));
  EXPECT_TRUE(Has("after"));
  EXPECT_FALSE(Has("refused"));
}

TEST_F(FullDiskTest, SoDoesTheFirstWriteAfterAStart) {
  disk_is_full = true;
  ExpectRefused("refused");
  Resume();
  EXPECT_TRUE(Put("after").ok());
  Open();
  EXPECT_TRUE(Has("after"));
  EXPECT_FALSE(Has("refused"));
}

TEST_F(FullDiskTest, OpeningIsRefusedWhereverItMeetsTheFullDiskAndAllIsThereAfterwards) {
  for (int writes = 0;; ++writes) {
    SCOPED_TRACE(writes);
    const std::string key = StrCat("before ", writes);
    ASSERT_TRUE(Put(key).ok());
    store_.reset();
    writes_left = writes;
    writes_are_bounded = true;
    const auto opened = KeyValueStore::Open({.path = folder_ / "store", .memory_bytes = kMemoryBytes});
    writes_are_bounded = false;
    if (opened.ok()) {
      EXPECT_GT(writes, 5);
      return;
    }
    EXPECT_EQ(ReasonOf(opened.status()), Reason::kReadOnly) << opened.status();
    Open();
    EXPECT_TRUE(Has(key));
  }
}

TEST_F(FullDiskTest, SoDoesTheFirstWriteAfterAllWasWrittenToTables) {
  ASSERT_TRUE(Put("before").ok());
  ASSERT_TRUE(store_->Copy(folder_ / "copy").ok());
  disk_is_full = true;
  ExpectRefused("refused");
  EXPECT_FALSE(store_->Copy(folder_ / "second copy").ok());
  Resume();
  EXPECT_TRUE(Put("after").ok());
  Open();
  for (const char* key : {"before", "after"}) EXPECT_TRUE(Has(key)) << key;
  EXPECT_FALSE(Has("refused"));
}

// RocksDB empties what is in memory in the very write that finds it full.
TEST_F(FullDiskTest, SoDoesAWriteThatFindsMemoryFullToo) {
  ASSERT_TRUE(Put("before", kMemoryBytes).ok());
  disk_is_full = true;
  ExpectRefused("refused");
  Resume();
  EXPECT_TRUE(Put("after").ok());
  Open();
  for (const char* key : {"before", "after"}) EXPECT_TRUE(Has(key)) << key;
  EXPECT_FALSE(Has("refused"));
}

TEST_F(FullDiskTest, SoDoesAWriteAfterATableFoundNoRoomWhereTheLogHadSome) {
  ExpectThatWhatEmptiesMemoryRefusesAndThenGoesOn(tables_find_no_room);
}

TEST_F(FullDiskTest, SoDoesAWriteForWhichNoNewLogCouldBeMade) {
  ExpectThatWhatEmptiesMemoryRefusesAndThenGoesOn(no_log_can_be_made);
}

// Others write to it, and would find it full for as long as its room is taken to see whether it is there.
TEST_F(FullDiskTest, NoRoomIsTakenOfADiskThatSaysItIsFull) {
  ASSERT_TRUE(Put("before").ok());
  disk_is_full = disk_is_said_to_be_full = true;
  ExpectRefused("refused");
  disk_is_full = false;
  times_room_was_taken = 0;
  EXPECT_EQ(ReasonOf(store_->Resume()), Reason::kReadOnly);
  EXPECT_EQ(times_room_was_taken, 0);
  disk_is_said_to_be_full = false;
  Resume();
  EXPECT_GT(times_room_was_taken, 0);
  EXPECT_TRUE(Put("after").ok());
}

// A flush that began while there was room fails when the log already has: RocksDB's own recovery, once there is room,
// would wait for ever for what it flushed itself meanwhile.
TEST_F(FullDiskTest, SoDoesTheFirstWriteAfterAFlushThatFailedBesideIt) {
  ASSERT_TRUE(Put("before").ok());
  tables_are_held = true;
  std::thread copying([this] { EXPECT_FALSE(store_->Copy(folder_ / "copy").ok()); });
  WaitUntil([] { return tables_that_waited > 0; });
  disk_is_full = true;
  ExpectRefused("refused");
  EXPECT_EQ(ReasonOf(store_->Resume()), Reason::kReadOnly);
  disk_is_full = tables_are_held = false;
  copying.join();
  Resume();
  EXPECT_TRUE(Put("after").ok());
  Open();
  for (const char* key : {"before", "after"}) EXPECT_TRUE(Has(key)) << key;
  EXPECT_FALSE(Has("refused"));
}

TEST_F(FullDiskTest, AStoreThatIsClosedWhileAFlushFailsIsClosed) {
  ASSERT_TRUE(Put("before").ok());
  tables_are_held = true;
  std::thread copying([this] { EXPECT_FALSE(store_->Copy(folder_ / "copy").ok()); });
  WaitUntil([] { return tables_that_waited > 0; });
  disk_is_full = true;
  ExpectRefused("refused");
  disk_is_full = tables_are_held = false;
  copying.join();
  Open();
  EXPECT_TRUE(Has("before"));
}

TEST_F(FullDiskTest, SoDoesTheFirstWriteAfterACompactionAndAFlushHaveFailed) {
  for (const char* copy : {"copy", "second copy"}) {
    for (const char* key : {"before", "before too"}) ASSERT_TRUE(Put(key).ok());
    ASSERT_TRUE(store_->Copy(folder_ / copy).ok());
  }
  disk_is_full = true;
  EXPECT_FALSE(store_->Compact().ok());
  disk_is_full = false;
  for (int i = 0; i < 3; ++i) {
    Resume();
    ASSERT_TRUE(Put(StrCat("after ", i)).ok());
    const bool copied = store_->Copy(folder_ / StrCat("later copy ", i)).ok();
    EXPECT_TRUE(copied || i == 0);
  }
  EXPECT_TRUE(store_->Compact().ok());
}

TEST_F(FullDiskTest, ReadsGoOnWhereverResumingMeetsTheFullDiskAgain) {
  ASSERT_TRUE(Put("before").ok());
  for (int writes = 0;; ++writes) {
    SCOPED_TRACE(writes);
    disk_is_full = true;
    ExpectRefused("refused");
    disk_is_full = false;
    writes_left = writes;
    writes_are_bounded = true;
    const absl::Status resumed = store_->Resume();
    writes_are_bounded = false;
    for (const char* key : {"before", "refused"}) EXPECT_EQ(Has(key), key == std::string("before")) << key;
    if (resumed.ok()) {
      EXPECT_GT(writes, 5);
      return;
    }
    EXPECT_EQ(ReasonOf(resumed), Reason::kReadOnly) << resumed;
    ExpectRefused("refused");
    Resume();
    EXPECT_TRUE(Put("before").ok());
  }
}

TEST_F(FullDiskTest, WhatReadsForLongEndsAndMustBeRepeated) {
  for (const char* key : {"a", "b"}) ASSERT_TRUE(Put(key).ok());
  const auto snapshot = store_->TakeSnapshot();
  disk_is_full = true;
  ExpectRefused("refused");
  std::thread resuming;
  int seen = 0;
  const absl::Status scanned =
      store_->Scan(Family::kMeta, "", "", nullptr, /*fill_cache=*/true, [&](auto, auto) -> absl::StatusOr<bool> {
        ++seen;
        resuming = std::thread([this] { Resume(); });
        WaitUntil([this] { return !store_->Get(Family::kMeta, "a", nullptr).ok(); });
        return true;
      });
  resuming.join();
  EXPECT_EQ(ReasonOf(scanned), Reason::kShardUnavailable) << scanned;
  EXPECT_EQ(seen, 1);
  EXPECT_EQ(ReasonOf(store_->Get(Family::kMeta, "a", snapshot.get()).status()), Reason::kShardUnavailable);
  EXPECT_TRUE(*store_->Get(Family::kMeta, "a", store_->TakeSnapshot().get()));
}

// Resuming bars all readers while it waits for those there are, and whoever wants to write tries it again and again.
TEST_F(FullDiskTest, AReaderThatStaysBarsTheOthersOnceAndNotAtEveryTry) {
  constexpr int kTries = 20;  // two seconds each, if each waited
  constexpr std::chrono::seconds kOnceAlone{8};
  ASSERT_TRUE(Put("before").ok());
  disk_is_full = true;
  ExpectRefused("refused");
  disk_is_full = false;
  const absl::Status scanned =
      store_->Scan(Family::kMeta, "", "", nullptr, /*fill_cache=*/true, [&](auto, auto) -> absl::StatusOr<bool> {
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < kTries; ++i) EXPECT_EQ(ReasonOf(store_->Resume()), Reason::kReadOnly);
        EXPECT_LT(std::chrono::steady_clock::now() - start, kOnceAlone);
        return true;
      });
  EXPECT_TRUE(scanned.ok()) << scanned;
  Resume();
  EXPECT_TRUE(Put("after").ok());
}

TEST_F(FullDiskTest, AWriteWhoseLogCannotBeSyncedMayHaveHappened) {
  ASSERT_TRUE(Put("before").ok());
  logs_cannot_be_synced = true;
  const absl::Status status = Put("unknown");
  EXPECT_EQ(ReasonOf(status), Reason::kWriteOutcomeUnknown) << status;
  logs_cannot_be_synced = false;
  EXPECT_EQ(ReasonOf(store_->Resume()), Reason::kReadOnly);
  ExpectRefused("refused");
  EXPECT_TRUE(Has("before"));
  EXPECT_FALSE(Has("unknown"));
  Open();
  EXPECT_TRUE(Has("unknown"));  // its record was whole
  EXPECT_FALSE(Has("refused"));
  EXPECT_TRUE(Put("after").ok());
}

TEST_F(FullDiskTest, AWriteIsSyncedBeforeItIsAcknowledged) {
  for (int i = 0; i < 10; ++i) {
    const int before = syncs_of_logs;
    ASSERT_TRUE(Put(StrCat(i)).ok());
    EXPECT_EQ(syncs_of_logs, before + 1);
  }
}

}  // namespace
}  // namespace retro
