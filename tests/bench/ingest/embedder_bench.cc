// The peer of `tests/bench/run.sh ingest`, and what makes the vectors of `index`: the retriever's own embedder alone.
// Cuts and tokenises the documents of a JSONL file beforehand, then embeds their chunks in batches; does what standard
// input asks for, line by line:
//   write FILE BATCH   writes the chunks' vectors, single precision, row after row, to FILE.f32, and prints as
//   time FILE BATCH    which prints the number of chunks and the seconds that embedding them in batches of BATCH took
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/openmp.h"
#include "common/tokenizer/chunker.h"
#include "common/tokenizer/tokenizer.h"
#include "nlohmann/json.hpp"
#include "retriever_service/embed/bert_embedder.h"

namespace retro {
namespace {

constexpr int kChunkSize = 64;

template <typename T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::cerr << value.status() << '\n';
  std::exit(1);
}

std::vector<TokenSequence> ReadChunks(const std::string& path, const Tokenizer& tokenizer, const Embedder& embedder) {
  std::ifstream file(path);
  std::vector<TokenSequence> sequences;
  for (std::string line; std::getline(file, line);) {
    const std::string text = nlohmann::json::parse(line).at("text");
    for (const TextChunk& chunk : CutIntoChunks(tokenizer, text, kChunkSize)) {
      const std::string_view bytes = std::string_view(text).substr(chunk.begin, chunk.end - chunk.begin);
      sequences.push_back(embedder.Encode(bytes, TextKind::kPassage));
    }
  }
  return sequences;
}

// Single precision, row after row, if a file is named.
double SecondsToEmbed(const std::vector<TokenSequence>& sequences, size_t batch_size, Embedder& embedder,
                      const std::string& write_to) {
  std::ofstream file(write_to, std::ios::binary);
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < sequences.size(); i += batch_size) {
    const std::span batch(sequences.data() + i, std::min(batch_size, sequences.size() - i));
    const std::vector<float> vectors = ValueOrDie(embedder.Embed(batch));
    file.write(reinterpret_cast<const char*>(vectors.data()),
               static_cast<std::streamsize>(vectors.size() * sizeof(float)));
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int Main(const std::string& folder, const std::string& tokenizer_path, int threads) {
  BertEncoderOptions options;
  options.threads = threads;
  const std::unique_ptr<BertEmbedder> embedder = ValueOrDie(BertEmbedder::Load(folder, options));
  const std::shared_ptr<const Tokenizer> tokenizer = ValueOrDie(LoadTokenizer(tokenizer_path));
  std::string command, path;
  for (size_t batch_size = 0; std::cin >> command >> path >> batch_size;) {
    const std::vector<TokenSequence> sequences = ReadChunks(path, *tokenizer, *embedder);
    const double seconds =
        SecondsToEmbed(sequences, batch_size, *embedder, command == "write" ? path + ".f32" : std::string());
    std::cout << sequences.size() << ' ' << seconds << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: embedder_bench MODEL TOKENIZER THREADS\n";
    return 2;
  }
  retro::EnsurePassiveOpenMp(argv);
  return retro::Main(argv[1], argv[2], std::stoi(argv[3]));
}
