// Our side of ../generate.sh: one generation through the engine, with neighbours that are found at once.
//   generate_bench MODEL_FOLDER DTYPE TOKENS
#include <future>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "common/base/openmp.h"
#include "common/tokenizer/tokenizer.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/engine/engine.h"
#include "generator_service/engine/model_runner.h"

namespace retro {
namespace {

constexpr int kThreads = 2;
constexpr int64_t kNeighbours = 2;
constexpr TokenId kFirstToken = 5;
constexpr uint32_t kSeed = 11;
constexpr double kTopShare = 0.1;  // of the vocabulary that is drawn from, as the peer's default filter does

template <typename T>
T ValueOrDie(absl::StatusOr<T> result) {
  if (result.ok()) return *std::move(result);
  std::cerr << result.status() << '\n';
  std::exit(1);
}

class GivenNeighbours : public NeighbourSource {
 public:
  explicit GivenNeighbours(const ModelConfig& config) : config_(config) {}

  void Lookup(std::vector<LookupRequest> requests, Callback done) override {
    for (const LookupRequest& request : requests) {
      LookupAnswer answer;
      answer.chunks.resize(request.chunks.size());
      for (FoundNeighbours& chunk : answer.chunks) {
        chunk.rows.count = kNeighbours;
        chunk.rows.tokens.resize(static_cast<size_t>(kNeighbours * config_.neighbour_length));
        for (TokenId& id : chunk.rows.tokens)
          id = 4 + static_cast<TokenId>(random_() % static_cast<uint64_t>(config_.vocabulary - 4));
      }
      done(request.lookup, std::move(answer));
    }
  }
  void CancelLookup(uint64_t /*lookup*/) override {}

 private:
  const ModelConfig config_;
  std::mt19937 random_{kSeed};
};

// Waits for the end and counts.
class CountingSink : public EventSink {
 public:
  void OnToken(TokenOutput /*output*/) override {}
  void OnChunk(ChunkOutput /*output*/) override {}
  void OnFinish(FinishOutput output) override { finish_.set_value(std::move(output)); }
  void OnError(absl::Status status) override {
    std::cerr << status << '\n';
    std::exit(1);
  }
  bool HasRoom() const override { return true; }
  FinishOutput Await() { return finish_.get_future().get(); }

 private:
  std::promise<FinishOutput> finish_;
};

void Generate(const std::string& folder, ModelNumbers numbers, int64_t tokens) {
  const LoadedModel loaded = ValueOrDie(LoadModel(folder, "cpu", {.numbers = numbers}));
  const auto tokenizer = ValueOrDie(LoadTokenizer(folder + "/" + loaded.info.tokenizer_file));
  const ModelConfig& config = loaded.model->config();
  GivenNeighbours source(config);
  EngineOptions options;
  options.facts = {config.vocabulary, config.chunk_length, config.max_length, static_cast<TokenId>(config.pad_id),
                   tokenizer.get()};
  Engine engine(options, std::make_unique<ModelRunner>(*loaded.model, kThreads), source);
  GenerationRequest request;
  request.prompt = {kFirstToken};
  request.max_tokens = tokens - 1;  // with the first one they fill the model's context
  request.sampling.temperature = 1.0F;
  request.sampling.top_k = static_cast<int>(kTopShare * static_cast<double>(config.vocabulary));
  request.sampling.logit_bias = {{tokenizer->eos_id(), -100.0F}};
  request.retrieval.enabled = true;
  request.arrival = Clock::now();
  const auto sink = std::make_shared<CountingSink>();
  const Clock::time_point start = Clock::now();
  ValueOrDie(engine.Submit(std::move(request), sink));
  const FinishOutput finish = sink->Await();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  // As if it had been one more, as the peer's loop makes.
  const nlohmann::json row = {{"seconds", seconds * static_cast<double>(tokens) / static_cast<double>(tokens - 1)},
                              {"tokens", finish.generated_tokens},
                              {"lookups", finish.lookups}};
  std::cout << row.dump() << std::endl;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  retro::EnsurePassiveOpenMp(argv);
  if (argc != 4) {
    std::cerr << "usage: generate_bench MODEL_FOLDER DTYPE TOKENS\n";
    return 2;
  }
  retro::Generate(argv[1], retro::ValueOrDie(retro::ModelNumbersFromName(argv[2])), std::stoll(argv[3]));
  return 0;
}
