// Makes a store that retro-retriever serves of the vectors of ../vectors/make.sh, for benchmarks of it:
//   store_fill VECTORS STORE TOKENIZER EMBEDDER SECONDS
// Stops after so many seconds with status 3, and goes on when it is called again. STORE.json says what it took so far,
// and whether everything is written, sealed and merged; then nothing is done. One whose index an older version of the
// program made is made again.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/base/openmp.h"
#include "nlohmann/json.hpp"
#include "retriever_service/embedder_flags.h"
#include "retriever_service/index/index_folder.h"
#include "retriever_service/ingest/collection_spec.h"
#include "retriever_service/shard/local_shard.h"
#include "tests/bench/bench.h"
#include "tests/bench/store/bench_store.h"

namespace retro {
namespace {

constexpr uint32_t kChunkSize = 64;  // tokens
constexpr size_t kUnsealedMax = 4;   // segments that wait for being sealed: bounds the memory
constexpr int kIndexThreads = 2;

// What it took, calls before this one included.
class Account {
 public:
  explicit Account(std::string path) : path_(std::move(path)) {
    std::ifstream file(path_);
    if (file) before_ = nlohmann::json::parse(file);
  }
  bool outdated() const { return !before_.empty() && before_.value("index_layout_version", 0U) != kIndexLayoutVersion; }
  void Forget() { before_ = nlohmann::json::object(); }
  bool complete() const { return before_.value("complete", false); }
  void Write(bool complete) const {
    const double processor = static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
    std::ofstream(path_) << nlohmann::json{
        {"build_seconds", before_.value("build_seconds", 0.0) + SecondsSince(start_)},
        {"build_processor_seconds", before_.value("build_processor_seconds", 0.0) + processor},
        {"parts", before_.value("parts", 0) + 1},
        {"index_layout_version", kIndexLayoutVersion},
        {"complete", complete}};
  }

 private:
  const std::string path_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  nlohmann::json before_ = nlohmann::json::object();
};

void Fill(const BenchVectors& vectors, const std::string& store, const std::string& tokenizer_file,
          const std::string& embedder_folder) {
  const auto tokenizer = ValueOrDie(LoadChunkingTokenizer(tokenizer_file));
  const auto embedder = ValueOrDie(MakeEmbedder({.embedder = embedder_folder}));
  LocalShardOptions options;
  options.store.path = store;
  options.index.threads = kIndexThreads;
  options.default_collection =
      MakeCollectionSpec("", *tokenizer, kChunkSize, embedder->info(), ValueOrDie(SelfTestVector(*embedder)));
  auto made = ValueOrDie(LocalShard::Open(options));
  LocalShard& shard = *made;
  std::vector<std::unique_ptr<Shard>> shards;
  shards.push_back(std::move(made));
  const auto map = ValueOrDie(ShardMap::Create(std::move(shards)));
  FillStore(vectors, *map, [&shard] { OrDie(shard.WaitForIndexes(kUnsealedMax)); });
  OrDie(shard.WaitForIndexes(0));
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: store_fill VECTORS STORE TOKENIZER EMBEDDER SECONDS\n");
    return 2;
  }
  retro::EnsurePassiveOpenMp(argv);
  retro::Account account(std::string(argv[2]) + ".json");
  if (account.outdated()) {
    std::filesystem::remove_all(argv[2]);
    account.Forget();
  }
  if (account.complete()) return 0;
  std::thread([&account, seconds = std::stoi(argv[5])] {
    std::this_thread::sleep_for(std::chrono::seconds(seconds));
    account.Write(/*complete=*/false);
    std::_Exit(3);  // as a kill: the store is whole at any moment
  }).detach();
  retro::Fill(retro::BenchVectors(argv[1]), argv[2], argv[3], argv[4]);
  account.Write(/*complete=*/true);
  return 0;
}
