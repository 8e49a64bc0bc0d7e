// fuzz_NAME [ROUNDS [SEED]]: mutations of the seeds and of each other, as libFuzzer makes them but without its
// feedback; the same ones for the same seed. fuzz_NAME FILE...: just those inputs.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "tests/fuzz/fuzz.h"

namespace retro {

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

}  // namespace retro

#ifdef RETRO_FUZZ
// The last argument is the folder of the corpus: it begins with the seeds.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const std::string folder = (*argv)[*argc - 1];
  if (*argc < 2 || !std::filesystem::is_directory(folder)) return 0;
  int number = 0;
  for (const std::string& seed : retro::FuzzSeeds()) {
    std::ofstream(folder + "/seed" + std::to_string(number++), std::ios::binary) << seed;
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  retro::FuzzOne({reinterpret_cast<const char*>(data), size});
  return 0;
}
#else
namespace retro {
namespace {

constexpr int kRoundsDefault = 2000;
constexpr unsigned kSeedDefault = 20260101;
constexpr size_t kInputBytesMax = 4096;
constexpr int kMutationsMax = 6;

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed), pool_(FuzzSeeds()) { pool_.emplace_back(); }

  std::string Next() {
    std::string input = pool_[Below(pool_.size())];
    for (size_t i = 1 + Below(kMutationsMax); i > 0; --i) Mutate(input);
    if (input.size() > kInputBytesMax) input.resize(kInputBytesMax);
    if (Below(8) == 0) pool_.push_back(input);
    return input;
  }
  const std::vector<std::string>& pool() const { return pool_; }

 private:
  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  void Mutate(std::string& input) {
    static const char* const kTokens[] = {"\xff",
                                          "\xed\xa0\x80",
                                          "\0",
                                          "{",
                                          "}",
                                          "[",
                                          "]",
                                          "\"",
                                          "\\u",
                                          "<",
                                          "</",
                                          "&#",
                                          "-1",
                                          "1e999",
                                          "18446744073709551616",
                                          "nan",
                                          "\xef\xbb\xbf",
                                          "..",
                                          "/",
                                          "\x80\x80\x80\x80"};
    const size_t at = Below(input.size() + 1);
    switch (Below(7)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(random_());
        break;
      case 1:
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ (1 << Below(8)));
        break;
      case 2:
        input.insert(at, kTokens[Below(std::size(kTokens))]);
        break;
      case 3:
        input.erase(at, Below(16));
        break;
      case 4:
        input.insert(at, input.substr(Below(input.size() + 1), Below(64)));
        break;
      case 5: {
        const std::string& other = pool_[Below(pool_.size())];
        input = input.substr(0, at) + other.substr(Below(other.size() + 1));
        break;
      }
      default:
        input.insert(at, Below(32), static_cast<char>(random_()));
    }
  }

  std::mt19937 random_;
  std::vector<std::string> pool_;
};

int RunFiles(int count, char** paths) {
  for (int i = 0; i < count; ++i) {
    std::ifstream file(paths[i], std::ios::binary);
    const std::string input{std::istreambuf_iterator<char>(file), {}};
    FuzzOne(input);
  }
  return 0;
}

int RunRounds(int rounds, unsigned seed) {
  std::printf("%d rounds, seed %u\n", rounds, seed);
  Mutator mutator(seed);
  for (const std::string& input : std::vector(mutator.pool())) FuzzOne(input);
  for (int round = 0; round < rounds; ++round) FuzzOne(mutator.Next());
  return 0;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  char* end = nullptr;
  const long rounds = argc > 1 ? std::strtol(argv[1], &end, 10) : retro::kRoundsDefault;
  if (argc > 1 && *end != '\0') return retro::RunFiles(argc - 1, argv + 1);
  return retro::RunRounds(static_cast<int>(rounds),
                          argc > 2 ? static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10)) : retro::kSeedDefault);
}
#endif
