// A store whose disk is full for a while: writes are refused and reads go on; once there is room again it goes on, and
// what was refused never comes back. The disk is full when this file's write() says so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <thread>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "retriever_service/store/key_value.h"
#include "tests/temporary_folder.h"

namespace {

std::atomic<bool> disk_is_full = false;

// Whether it is a file of a store's data.
bool IsOnTheDisk(int descriptor) {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), error);
  return path.extension() == ".log" || path.extension() == ".sst";
}

std::atomic<bool> writes_are_bounded = false;
std::atomic<int> writes_left = 0;  // to any file of a store until its disk is full

bool IsPastTheLast(int descriptor) {
  if (!writes_are_bounded) return false;
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), error).string();
  return path.find("/store/") != std::string::npos && writes_left.fetch_sub(1) <= 0;
}

}  // namespace

extern "C" ssize_t write(int descriptor, const void* data, size_t size) {
  if ((disk_is_full && IsOnTheDisk(descriptor)) || IsPastTheLast(descriptor)) {
    errno = ENOSPC;
    return -1;
  }
  return syscall(SYS_write, descriptor, data, size);
}

namespace retro {
namespace {

using std::chrono::milliseconds;

constexpr std::chrono::seconds kWaitMax{60};
constexpr size_t kMemoryBytes = size_t{8} << 20;

class FullDiskTest : public testing::Test {
 protected:
  FullDiskTest() { Open(); }
  ~FullDiskTest() override { disk_is_full = writes_are_bounded = false; }

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
  void ResumeInTime() {
    disk_is_full = false;
    const auto end = std::chrono::steady_clock::now() + kWaitMax;
    while (!store_->Resume().ok()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::sleep_for(milliseconds(20));
    }
  }
  void ExpectRefused(const std::string& key) {
    const absl::Status status = Put(key);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(ReasonOf(status), Reason::kReadOnly) << status;
  }

  TemporaryFolder folder_;
  std::unique_ptr<KeyValueStore> store_;
};

TEST_F(FullDiskTest, WritesGoOnOnceThereIsRoom) {
  ASSERT_TRUE(Put("before").ok());
  disk_is_full = true;
  ExpectRefused("refused");
  EXPECT_TRUE(Has("before"));
  ResumeInTime();
  EXPECT_TRUE(Put("after").ok());
  Open();
  EXPECT_TRUE(Has("before"));
  EXPECT_TRUE(Has("after"));
  EXPECT_FALSE(Has("refused"));
}

TEST_F(FullDiskTest, SoDoesTheFirstWriteAfterAStart) {
  disk_is_full = true;
  ExpectRefused("refused");
  ResumeInTime();
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
  ResumeInTime();
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
  ResumeInTime();
  EXPECT_TRUE(Put("after").ok());
  Open();
  for (const char* key : {"before", "after"}) EXPECT_TRUE(Has(key)) << key;
  EXPECT_FALSE(Has("refused"));
}

}  // namespace
}  // namespace retro
