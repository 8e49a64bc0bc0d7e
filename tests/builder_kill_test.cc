// retro-build, killed at random moments and started again until it is through, builds what it builds undisturbed.
//   RETRO_KILL_SEED=N builder_kill_test
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <random>
#include <thread>

#include "tests/builder_fixture.h"

namespace retro {
namespace {

constexpr size_t kTexts = 1500;
constexpr int kRunsMax = 100;
constexpr int kUndisturbedMsMax = 30;  // of a process that has noted something, until it is killed
constexpr std::chrono::milliseconds kLookEvery{1};

class Killed {
 public:
  explicit Killed(uint32_t seed) : random_(seed) { std::cout << "seed " << seed << std::endl; }

  // Starts the program until it ends by itself, and kills it soon after it has noted in the file `state` how far it is;
  // how often it was started.
  int RunUntilDone(const std::vector<std::string>& arguments, const std::string& state) {
    for (int runs = 1; runs <= kRunsMax; ++runs) {
      const pid_t child = Start(arguments);
      const std::string before = ReadFile(state).value_or("");
      int status = 0;
      bool ended = false;
      do {
        std::this_thread::sleep_for(kLookEvery);
        ended = waitpid(child, &status, WNOHANG) == child;
      } while (!ended && ReadFile(state).value_or(before) == before);
      if (!ended) {
        std::this_thread::sleep_for(kLookEvery * (random_() % kUndisturbedMsMax));
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
      }
      if (WIFEXITED(status)) {
        EXPECT_EQ(WEXITSTATUS(status), 0);
        return runs;
      }
    }
    ADD_FAILURE() << "it was never through";
    return kRunsMax;
  }

 private:
  static pid_t Start(std::vector<std::string> arguments) {
    const std::string program =
        std::filesystem::canonical("/proc/self/exe").parent_path().parent_path() / "bin/retro-build";
    arguments.insert(arguments.begin(), program);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      execv(program.c_str(), argv.data());
      _exit(127);
    }
    return child;
  }

  std::mt19937 random_;
};

class BuilderKillTest : public testing::Test {
 protected:
  BuilderKillTest() : killed_(static_cast<uint32_t>(std::stoul(EnvironmentOr("RETRO_KILL_SEED", "4711")))) {
    WriteDocuments(folder_ / "a.jsonl", DistinctTexts(kTexts, 11));
  }

  // Small segments, so that sealing and merging are cut short too.
  std::vector<std::string> Shard(const std::string& out) {
    return Joined({"shard", folder_ / "a.jsonl", "--out", folder_ / out, "--index-seal-chunks", "3000"},
                  ContentArguments());
  }

  const TemporaryFolder folder_;
  Killed killed_;
};

TEST_F(BuilderKillTest, GoesOnWhereItWas) {
  ASSERT_EQ(RunBuilder(Shard("whole")), 0);
  EXPECT_GT(killed_.RunUntilDone(Shard("killed"), folder_ / "killed.unfinished/build.json"), 1);
  EXPECT_EQ(DigestOf(folder_ / "killed").sha256, DigestOf(folder_ / "whole").sha256);
  EXPECT_EQ(DigestOf(folder_ / "killed").documents, kTexts);
  const std::vector<std::string> queries = DistinctTexts(20, 5);
  EXPECT_EQ(AnswersOf({folder_ / "killed"}, queries), AnswersOf({folder_ / "whole"}, queries));

  const auto reshard = [&](const std::string& out) {
    return std::vector<std::string>{"reshard",     folder_ / "whole",     "--out",
                                    folder_ / out, "--index-seal-chunks", "3000"};
  };
  ASSERT_EQ(RunBuilder(reshard("resharded")), 0);
  EXPECT_GT(killed_.RunUntilDone(reshard("resharded-killed"), folder_ / "resharded-killed.unfinished/build.json"), 1);
  EXPECT_EQ(DigestOf(folder_ / "resharded-killed").sha256, DigestOf(folder_ / "resharded").sha256);

  const auto training_data = [&](const std::string& out) {
    return std::vector<std::string>{"training-data", folder_ / "whole", "--out",
                                    folder_ / out,   "--tokenizer",     TinyTokenizerPath()};
  };
  ASSERT_EQ(RunBuilder(training_data("data")), 0);
  EXPECT_GT(killed_.RunUntilDone(training_data("data-killed"), folder_ / "data-killed/partial/state.json"), 1);
  for (const char* name :
       {"tokens.bin", "chunks.bin", "documents.bin", "documents.jsonl", "vectors.bin", "data.json"}) {
    EXPECT_EQ(*ReadFile(folder_ / StrCat("data/", name)), *ReadFile(folder_ / StrCat("data-killed/", name))) << name;
  }
}

}  // namespace
}  // namespace retro
