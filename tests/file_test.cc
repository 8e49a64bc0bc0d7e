// Files as whole things, and what a link in their place does: nothing.
#include "common/base/file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/temporary_folder.h"

namespace retro {
namespace {

namespace fs = std::filesystem;

TEST(FileTest, AFileIsReplacedWholeAndNothingIsLeftBeside) {
  const TemporaryFolder folder;
  const std::string path = folder / "file";
  ASSERT_TRUE(WriteFileAtomically(path, "old").ok());
  {
    auto file = AtomicFile::Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(file->Append("new").ok());
    EXPECT_EQ(*ReadFile(path), "old");
  }
  EXPECT_EQ(*ReadFile(path), "old") << "without a commit";
  ASSERT_TRUE(WriteFileAtomically(path, "new").ok());
  EXPECT_EQ(*ReadFile(path), "new");
  const fs::directory_iterator all(folder.path());
  EXPECT_EQ(std::distance(begin(all), end(all)), 1);
}

// More than is sent to the disk at once, in pieces that do not fit it.
TEST(FileTest, ALargeFileHasWhatWasAppended) {
  const TemporaryFolder folder;
  const std::string path = folder / "file";
  std::string all;
  {
    auto file = AtomicFile::Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    for (const size_t size : {1, 3'000'001, 10'000'003, 0, 4 << 20, 5}) {
      const std::string piece(size, static_cast<char>('a' + all.size() % 26));
      ASSERT_TRUE(file->Append(piece).ok());
      all += piece;
    }
    AtomicFile moved = *std::move(file);
    ASSERT_TRUE(moved.Append("end").ok());
    ASSERT_TRUE(moved.Commit().ok());
  }
  EXPECT_TRUE(*ReadFile(path) == all + "end");
}

// What /proc/self/io says of this process; 0 where it does not.
uint64_t IoBytes(std::string_view wanted) {
  std::ifstream file("/proc/self/io");
  std::string name;
  uint64_t bytes = 0;
  while (file >> name >> bytes) {
    if (name == wanted) return bytes;
  }
  return 0;
}

// Of a file that goes away the system counts the bytes that had not been on their way to the disk, if it is on one.
TEST(FileTest, ALargeFileGoesToTheDiskAsItIsWritten) {
  constexpr uint64_t kMib = 1 << 20, kSize = 64 * kMib;
  const TemporaryFolder folder;
  const std::string path = folder / "file";
  const uint64_t never_sent = IoBytes("cancelled_write_bytes:");
  {
    auto file = AtomicFile::Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    const std::string piece(kMib, 'a');
    for (uint64_t size = 0; size < kSize; size += kMib) ASSERT_TRUE(file->Append(piece).ok());
  }
  EXPECT_LE(IoBytes("cancelled_write_bytes:") - never_sent, 8 * kMib);
}

TEST(FileTest, WritingThroughAPlantedLinkIsRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "file", victim = folder / "victim";
  ASSERT_TRUE(WriteFileAtomically(victim, "precious").ok());
  fs::create_symlink(victim, path + ".tmp");
  EXPECT_FALSE(WriteFileAtomically(path, "harm").ok());
  EXPECT_EQ(*ReadFile(victim), "precious");
  fs::remove(path + ".tmp");
  fs::create_symlink(victim, path);
  ASSERT_TRUE(WriteFileAtomically(path, "new").ok());
  EXPECT_FALSE(fs::is_symlink(path)) << "the link is replaced, not what it leads to";
  EXPECT_EQ(*ReadFile(victim), "precious");
}

}  // namespace
}  // namespace retro
