// See ../mixed.sh.
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "common/base/sync.h"
#include "common/tokenizer/tokenizer.h"
#include "generator_service/checkpoints/random_init.h"
#include "generator_service/engine/engine.h"
#include "generator_service/engine/model_runner.h"

namespace retro {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr int kThreads = 2;
constexpr int64_t kNeighbours = 2;
constexpr int64_t kRunningPrompt = 64;
constexpr int64_t kLongPrompt = 2000;
constexpr int kLongPrompts = 3;
constexpr size_t kQuietTokens = 256;
constexpr double kPromised = 3;
constexpr microseconds kEmbedTime{1'000'000 / 94};
constexpr microseconds kCallTime{3000};

template <typename T>
T ValueOrDie(absl::StatusOr<T> result) {
  if (result.ok()) return *std::move(result);
  std::cerr << result.status() << '\n';
  std::exit(1);
}

std::vector<TokenId> RandomTokens(int64_t count, int64_t vocabulary, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  for (TokenId& token : tokens) token = static_cast<TokenId>(4 + random() % static_cast<uint64_t>(vocabulary - 4));
  return tokens;
}

// A retriever that takes its time: calls wait for each other, as texts do for an embedder.
class SlowSource : public NeighbourSource {
 public:
  explicit SlowSource(const ModelConfig& config) : config_(config), thread_([this] { Loop(); }) {}
  ~SlowSource() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      changed_.NotifyAll();
    }
    thread_.join();
  }

  void Lookup(std::vector<LookupRequest> requests, Callback done) override {
    MutexLock lock(mutex_);
    for (LookupRequest& request : requests) {
      busy_until_ = std::max(busy_until_, Clock::now()) + kEmbedTime * static_cast<int64_t>(request.chunks.size());
      queue_.push_back({busy_until_ + kCallTime, std::move(request), done});
    }
    changed_.NotifyAll();
  }
  void CancelLookup(uint64_t /*lookup*/) override {}

 private:
  struct Waiting {
    Clock::time_point due;
    LookupRequest request;
    Callback done;
  };

  void Loop() {
    while (true) {
      Waiting next;
      {
        MutexLock lock(mutex_);
        while (!stopping_ && (queue_.empty() || Clock::now() < queue_.front().due)) {
          if (queue_.empty()) {
            changed_.Wait(mutex_);
          } else {
            changed_.WaitUntil(mutex_, queue_.front().due);
          }
        }
        if (stopping_) return;
        next = std::move(queue_.front());
        queue_.pop_front();
      }
      LookupAnswer answer;
      for (size_t i = 0; i < next.request.chunks.size(); ++i) {
        ChunkNeighbours& rows = answer.chunks.emplace_back().rows;
        rows.count = kNeighbours;
        rows.tokens = RandomTokens(kNeighbours * config_.neighbour_length, config_.vocabulary, ++answers_);
      }
      next.done(next.request.lookup, std::move(answer));
    }
  }

  const ModelConfig config_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Waiting> queue_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point busy_until_ ABSL_GUARDED_BY(mutex_);
  uint32_t answers_ = 0;  // the thread's
  std::thread thread_;
};

// When each token of a stream came.
class TimedSink : public EventSink {
 public:
  void OnToken(TokenOutput /*output*/) override {
    MutexLock lock(mutex_);
    times_.push_back(Clock::now());
    changed_.NotifyAll();
  }
  void OnChunk(ChunkOutput /*output*/) override {}
  void OnFinish(FinishOutput /*output*/) override { End(); }
  void OnError(absl::Status status) override {
    std::cerr << status << '\n';
    std::exit(1);
  }
  bool HasRoom() const override { return true; }

  void AwaitTokens(size_t count) {
    MutexLock lock(mutex_);
    while (times_.size() < count && !ended_) changed_.Wait(mutex_);
  }
  void AwaitEnd() {
    MutexLock lock(mutex_);
    while (!ended_) changed_.Wait(mutex_);
  }
  size_t tokens() const {
    MutexLock lock(mutex_);
    return times_.size();
  }
  // Milliseconds between the tokens first ... last - 1 and the ones before them, rising.
  std::vector<double> Gaps(size_t first, size_t last) const {
    MutexLock lock(mutex_);
    std::vector<double> gaps;
    for (size_t i = first; i < last; ++i)
      gaps.push_back(std::chrono::duration<double, std::milli>(times_[i] - times_[i - 1]).count());
    std::ranges::sort(gaps);
    return gaps;
  }

 private:
  void End() {
    MutexLock lock(mutex_);
    ended_ = true;
    changed_.NotifyAll();
  }

  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<Clock::time_point> times_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

double Percentile(const std::vector<double>& rising, double share) {
  return rising.at(static_cast<size_t>(std::ceil(share * static_cast<double>(rising.size()))) - 1);
}

GenerationRequest Request(const ModelConfig& config, const Tokenizer& tokenizer, int64_t prompt, int64_t max_tokens) {
  GenerationRequest request;
  request.prompt = RandomTokens(prompt, config.vocabulary, static_cast<uint32_t>(prompt));
  request.max_tokens = max_tokens;
  request.sampling.logit_bias = {{tokenizer.eos_id(), -100.0F}};
  request.retrieval.enabled = true;
  request.retrieval.offset = prompt % config.chunk_length;
  request.retrieval.timeout_ms = milliseconds(60'000);
  request.arrival = Clock::now();
  return request;
}

void Measure(const RetroModel& model, const Tokenizer& tokenizer) {
  const ModelConfig& config = model.config();
  SlowSource source(config);
  EngineOptions options;
  options.facts = {config.vocabulary, config.chunk_length, config.max_length, static_cast<TokenId>(config.pad_id),
                   &tokenizer};
  Engine engine(options, std::make_unique<ModelRunner>(model, kThreads), source);
  const auto running = std::make_shared<TimedSink>();
  const int64_t rest = config.max_length - kRunningPrompt;
  ValueOrDie(engine.Submit(Request(config, tokenizer, kRunningPrompt, rest), running));
  running->AwaitTokens(kQuietTokens + 1);
  const std::vector<double> quiet = running->Gaps(1, kQuietTokens + 1);

  const size_t first = running->tokens();
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < kLongPrompts; ++i) {
    const auto prompt = std::make_shared<TimedSink>();
    ValueOrDie(engine.Submit(Request(config, tokenizer, kLongPrompt, 1), prompt));
    prompt->AwaitEnd();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const std::vector<double> beside = running->Gaps(first, running->tokens());
  const double ours = Percentile(beside, 0.99);
  const double peer = Percentile(quiet, 0.99);
  const nlohmann::json row = {{"bench", "mixed"},
                              {"row", "p99 between tokens beside a prefill of 2,000 tokens"},
                              {"ours", ours},
                              {"peer", peer},
                              {"peer_name", "the same session alone"},
                              {"unit", "ms"},
                              {"ratio", kPromised * peer / ours},
                              {"pass", ours <= kPromised * peer},
                              {"valid", true},
                              {"median_ms", Percentile(beside, 0.5)},
                              {"median_alone_ms", Percentile(quiet, 0.5)},
                              {"tokens", beside.size()},
                              {"prefill_tokens_per_s", kLongPrompts * kLongPrompt / seconds}};
  std::cout << row.dump() << std::endl;
}

int Main(int argc, char** argv) {
  std::string preset = "retro-425m";
  std::string tokenizer_file;
  CLI::App app("A running session beside a long prompt", "mixed_bench");
  app.add_option("--preset", preset, "Sizes of the model")->capture_default_str();
  app.add_option("--tokenizer", tokenizer_file, "SentencePiece model")->required();
  CLI11_PARSE(app, argc, argv);
  const std::shared_ptr<const Tokenizer> tokenizer = ValueOrDie(LoadTokenizer(tokenizer_file));
  ModelConfig config = ValueOrDie(PresetModelConfig(preset));
  config.vocabulary = tokenizer->vocabulary_size();
  const std::unique_ptr<RetroModel> model =
      ValueOrDie(RetroModel::Create(config, ValueOrDie(RandomWeights(config, 1)), "cpu"));
  Measure(*model, *tokenizer);
  return 0;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) { return retro::Main(argc, argv); }
