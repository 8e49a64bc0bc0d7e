#include "common/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "tests/test_paths.h"

namespace retro {
namespace {

using ::testing::HasSubstr;

class LoadTokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    folder_ = std::filesystem::path(::testing::TempDir()) / ("retro_tokenizer_test_" + name);
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, std::string_view bytes) {
    std::string path = (folder_ / name).string();
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  // Expects the error, with the path of the file in its message.
  static void ExpectError(const std::string& path, absl::StatusCode code, const std::string& named) {
    const absl::Status status = LoadTokenizer(path).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(named));
  }

  std::filesystem::path folder_;
};

constexpr std::string_view kVocabulary = "[UNK]\na\nA\n";

TEST_F(LoadTokenizerTest, OurVocabulary) {
  const auto tokenizer = LoadTokenizer(SourcePath("common/tokenizer/retro-16k.model"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_TRUE((*tokenizer)->lossless());
}

TEST_F(LoadTokenizerTest, WordPieceIsUncasedUnlessItsConfigSaysSo) {
  const std::string path = Write("vocab.txt", kVocabulary);
  EXPECT_EQ((*LoadTokenizer(path))->Encode("A").at(0).id, 1);
  Write("tokenizer_config.json", R"({"do_lower_case": true, "strip_accents": null})");
  EXPECT_EQ((*LoadTokenizer(path))->Encode("A").at(0).id, 1);
  Write("tokenizer_config.json", R"({"do_lower_case": false})");
  EXPECT_EQ((*LoadTokenizer(path))->Encode("A").at(0).id, 2);
}

TEST_F(LoadTokenizerTest, ConfigsThatCannotBeFollowedAreErrors) {
  const std::string path = Write("vocab.txt", kVocabulary);
  for (const char* config : {"{", "[]", R"({"strip_accents": false})", R"({"tokenize_chinese_chars": false})"}) {
    const std::string config_path = Write("tokenizer_config.json", config);
    ExpectError(path, absl::StatusCode::kInvalidArgument, config_path);
  }
}

TEST_F(LoadTokenizerTest, MissingFiles) {
  for (const char* name : {"none.model", "vocab.txt"}) {
    const std::string path = (folder_ / name).string();
    ExpectError(path, absl::StatusCode::kNotFound, path);
  }
}

TEST_F(LoadTokenizerTest, DamagedFiles) {
  for (const auto& [name, bytes] :
       {std::pair{"empty.model", ""}, {"text.model", "hello"}, {"vocab.txt", ""}, {"tokenizer.json", "{}"}}) {
    const std::string path = Write(name, bytes);
    ExpectError(path, absl::StatusCode::kInvalidArgument, path);
  }
}

}  // namespace
}  // namespace retro
