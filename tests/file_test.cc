// Files as whole things, and what a link in their place does: nothing.
#include "common/base/file.h"

#include <gtest/gtest.h>

#include <filesystem>
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
