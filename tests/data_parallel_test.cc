// Training in several processes: two of them, under mpirun, take the steps of one.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "common/base/file.h"
#include "common/safetensors/safetensors.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "tests/temporary_folder.h"
#include "tests/test_paths.h"
#include "tests/tiny_training.h"
#include "trainer/batch.h"
#include "trainer/train_checkpoint.h"

namespace retro {
namespace {

using testing::HasSubstr;

// A command in a process group of its own, so that what it starts can be ended with it.
class Command {
 public:
  Command(const std::vector<std::string>& words, const std::string& output) {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    setpgid(0, 0);
    if (std::freopen(output.c_str(), "w", stderr) == nullptr || std::freopen("/dev/null", "w", stdout) == nullptr) {
      _exit(126);
    }
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  ~Command() {
    if (pid_ < 0) return;
    kill(-pid_, SIGKILL);
    Wait();
  }

  // The exit status; -1 after a signal.
  int Wait() {
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  // The processes that run `program` below this one.
  std::vector<pid_t> Running(const std::string& program) const {
    std::vector<pid_t> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/task")) {
      std::ifstream children(entry.path() / "children");
      for (pid_t child = 0; children >> child;) {
        std::error_code gone;
        const auto path = std::filesystem::read_symlink("/proc/" + std::to_string(child) + "/exe", gone);
        if (path.filename() == program) found.push_back(child);
      }
    }
    return found;
  }

 private:
  pid_t pid_ = -1;
};

class DataParallelTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
  }

  void SetUp() override {
    MakeTinyData(folder_ / "data", TinyTexts(80, 11));
    MakeTinyData(folder_ / "validation", TinyTexts(40, 12));
    MakeTinyModelFolder(folder_ / "start", TinyTrainingConfig());
  }

  std::vector<std::string> Words(const std::string& out, int steps, const std::string& seed = "1") const {
    return {program_,
            "run",
            "--model",
            folder_ / "start",
            "--data",
            folder_ / "data",
            "--validation",
            folder_ / "validation",
            "--out",
            folder_ / out,
            "--seed",
            seed,
            "--steps",
            std::to_string(steps),
            "--windows",
            "1",
            "--accumulation",
            "4",
            "--length",
            "32",
            "--offset-share",
            "0.5",
            "--log-steps",
            "1",
            "--warmup-steps",
            "5",
            "--no-retrieval-share",
            "0.4",
            "--checkpoint-steps",
            "10",
            "--validation-steps",
            "10",
            "--validation-batches",
            "5"};
  }

  static std::vector<std::string> InProcesses(int count, const std::vector<std::string>& words) {
    std::vector<std::string> all;
    // Open MPI frees not all that it takes, of which a build with LeakSanitizer would tell.
    if (count > 1)
      all = {"env", "LSAN_OPTIONS=detect_leaks=0", "mpirun", "--bind-to", "none", "-np", std::to_string(count)};
    all.insert(all.end(), words.begin(), words.end());
    return all;
  }

  int Run(int processes, const std::string& out, int steps) const {
    return Command(InProcesses(processes, Words(out, steps)), folder_ / "messages").Wait();
  }
  std::string Messages() const { return *ReadFile(folder_ / "messages"); }

  // The columns that do not hang on the time, by step.
  std::vector<std::vector<double>> Curve(const std::string& out) const {
    std::vector<std::vector<double>> rows;
    std::istringstream lines(*ReadFile(folder_ / out + "/curve.csv"));
    std::string line;
    std::getline(lines, line);
    while (std::getline(lines, line)) {
      std::vector<double> row;
      std::istringstream cells(line);
      for (std::string cell; std::getline(cells, cell, ',');) {
        if (row.size() != 5) row.push_back(cell.empty() ? 0 : std::stod(cell));
        if (row.size() == 5) std::getline(cells, cell, ',');  // tokens per second
      }
      rows.push_back(row);
    }
    return rows;
  }

  void ExpectSameCurve(const std::string& found, const std::string& expected, size_t rows) const {
    const auto a = Curve(found);
    const auto b = Curve(expected);
    ASSERT_EQ(a.size(), rows);
    ASSERT_EQ(b.size(), rows);
    for (size_t i = 0; i < rows; ++i) {
      ASSERT_EQ(a[i].size(), b[i].size());
      for (size_t c = 0; c < a[i].size(); ++c) {
        EXPECT_NEAR(a[i][c], b[i][c], 2e-5 * std::max(1.0, std::abs(b[i][c]))) << "row " << i << ", column " << c;
      }
    }
  }

  // Of the largest value of each tensor of the run's checkpoint, whose name begins so: the largest difference.
  double Difference(const std::string& first, const std::string& second, const std::string& prefix) const {
    const auto a = SafetensorsFile::Open(folder_ / first + "/" + kCheckpointName);
    const auto b = SafetensorsFile::Open(folder_ / second + "/" + kCheckpointName);
    double worst = 0;
    for (const auto& [name, entry] : a->tensors()) {
      if (!name.starts_with(prefix)) continue;
      const at::Tensor one = *ReadWeight(*a, name, entry.shape);
      const at::Tensor two = *ReadWeight(*b, name, entry.shape);
      const double largest = two.abs().max().item<double>();
      EXPECT_GT(largest, 0) << name;
      worst = std::max(worst, (one - two).abs().max().item<double>() / largest);
    }
    return worst;
  }

  const std::string program_ = EnvironmentOr("RETRO_BUILD", "RETRO_BUILD-is-not-set") + "/bin/retro-train";
  TemporaryFolder folder_;
};

// Two epochs, whose labels must be counted as they are; the batches, for what else is to be asked of them.
std::vector<Batch> BatchesWhoseLabelsAreCounted(const DataSet& data) {
  const ModelConfig config = TinyTrainingConfig();
  BatchMaker maker(data, nullptr, config, {.windows = 3, .length = 32, .offset_share = 0.6});
  std::vector<Batch> batches;
  for (uint64_t number = 0; number < 2 * maker.windows_per_epoch(); ++number) {
    batches.push_back(maker.Make(number));
    EXPECT_EQ(maker.CountLabels(number), batches.back().label_count) << number;
  }
  return batches;
}

TEST_F(DataParallelTest, LabelsAreCountedAsTheBatchesHaveThem) {
  EXPECT_FALSE(BatchesWhoseLabelsAreCounted(*DataSet::Open(folder_ / "data")).empty());
}

// A store cuts no character in two: its chunks may be short in the middle of a document, and the first one too.
TEST_F(DataParallelTest, LabelsOfUnevenChunksAreCountedAsTheBatchesHaveThem) {
  const auto tokenizer = LoadTokenizer(TinyTokenizerPath());
  auto writer = DataSetWriter::Open(folder_ / "uneven", *HeaderOf(**tokenizer, "", kTinyChunk), "");
  ASSERT_TRUE(writer.ok()) << writer.status();
  const std::vector<std::vector<uint32_t>> cuts = {{5, 8, 7, 3}, {7, 8}, {8, 6, 8, 8, 5}, {6, 7, 8, 8}};
  for (int d = 0; d < 40; ++d) {
    const std::vector<uint32_t>& chunks = cuts[d % cuts.size()];
    ASSERT_TRUE(writer->Add({}, std::vector<TokenId>(std::reduce(chunks.begin(), chunks.end()), 7), chunks).ok());
  }
  ASSERT_TRUE(writer->Publish().ok());
  const DataSet data = *DataSet::Open(folder_ / "uneven");
  for (const Batch& batch : BatchesWhoseLabelsAreCounted(data)) {
    // Nothing of the document before stands in front of a window's first one.
    const at::Tensor ended = batch.tokens.narrow(1, 0, 31).eq(data.header().eos_id);
    const at::Tensor same = batch.segments.narrow(1, 0, 31).eq(batch.segments.narrow(1, 1, 31));
    const at::Tensor text = batch.tokens.narrow(1, 1, 31).ne(data.header().pad_id);
    EXPECT_FALSE(ended.logical_and(same).logical_and(text).any().item<bool>());
  }
}

// After one step the first moments are the gradients (clipped, times a constant).
TEST_F(DataParallelTest, TwoProcessesHaveTheGradientsOfOne) {
  ASSERT_EQ(Run(1, "one", 1), 0) << Messages();
  ASSERT_EQ(Run(2, "two", 1), 0) << Messages();
  EXPECT_LT(Difference("two", "one", "mean/"), 2e-5);
  EXPECT_EQ(Curve("two")[0][1], Curve("one")[0][1]);  // labels
}

TEST_F(DataParallelTest, TwoProcessesHaveTheCurveAndTheWeightsOfOne) {
  ASSERT_EQ(Run(1, "one", 20), 0) << Messages();
  ASSERT_EQ(Run(2, "two", 20), 0) << Messages();
  ExpectSameCurve("two", "one", 20);
  // AdamW takes steps of full length where a gradient is hardly more than its rounding.
  EXPECT_LT(Difference("two", "one", "weight/"), 5e-4);
}

TEST_F(DataParallelTest, AKilledProcessEndsTheOthersAndTheRunGoesOnToTheSameCurve) {
  constexpr int kSteps = 40;
  ASSERT_EQ(Run(2, "whole", kSteps), 0) << Messages();
  {
    Command command(InProcesses(2, Words("killed", kSteps)), folder_ / "messages");
    const std::string checkpoint = folder_ / "killed/" + kCheckpointName;
    while (!std::filesystem::exists(checkpoint)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const std::vector<pid_t> ranks = command.Running("retro-train");
    ASSERT_EQ(ranks.size(), 2U);
    kill(ranks[1], SIGKILL);
    EXPECT_NE(command.Wait(), 0);
  }
  EXPECT_THAT(Messages(), HasSubstr("signal 9"));
  EXPECT_LT(Curve("killed").size(), static_cast<size_t>(kSteps));
  std::filesystem::copy(folder_ / "killed", folder_ / "alone");
  ASSERT_EQ(Run(2, "killed", kSteps), 0) << Messages();
  ExpectSameCurve("killed", "whole", kSteps);
  EXPECT_EQ(Difference("killed", "whole", "weight/"), 0);
  // Another number of processes may go on as well.
  ASSERT_EQ(Run(1, "alone", kSteps), 0) << Messages();
  ExpectSameCurve("alone", "whole", kSteps);
}

TEST_F(DataParallelTest, AProcessThatFailsSaysWhyAndEndsTheOthers) {
  EXPECT_EQ(Run(3, "run", 5), 1);
  EXPECT_THAT(Messages(), HasSubstr("the passes of a step (4) do not go evenly into 3 processes"));
  // Rank 0 alone writes, so it alone fails to.
  std::filesystem::create_directories(folder_ / "blocked/curve.csv");
  EXPECT_EQ(Run(2, "blocked", 5), 1);
  EXPECT_THAT(Messages(), HasSubstr("rank 0 of 2: "));
  EXPECT_THAT(Messages(), HasSubstr("curve.csv"));
}

TEST_F(DataParallelTest, ProcessesWithOtherOptionsAreRefused) {
  std::vector<std::string> words = {"mpirun", "-np", "1"};
  for (const std::string& word : Words("run", 5)) words.push_back(word);
  words.insert(words.end(), {":", "-np", "1"});
  for (const std::string& word : Words("run", 5, /*seed=*/"2")) words.push_back(word);
  EXPECT_EQ(Command(words, folder_ / "messages").Wait(), 1);
  EXPECT_THAT(Messages(), HasSubstr("rank 1 has another model, data or options than rank 0"));
}

}  // namespace
}  // namespace retro
