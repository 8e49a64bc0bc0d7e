// Our side of `tests/bench/run.sh embed`: loads the encoder once, then does what standard input asks for, line by line,
// so that the script can let it and its peer take turns. A file of sequences has one a line, ids separated by spaces.
//   time BATCH FILE  embeds the file, BATCH sequences a call; prints the seconds that it took
//   embed FILE OUT   embeds the file in batches of 32; writes the vectors to OUT as raw fp32
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "retriever_service/embed/bert_encoder.h"

namespace retro {
namespace {

constexpr size_t kBatch = 32;

std::vector<TokenSequence> ReadSequences(const std::string& path) {
  std::ifstream file(path);
  std::vector<TokenSequence> sequences;
  for (std::string line; std::getline(file, line);) {
    std::istringstream ids(line);
    TokenSequence& sequence = sequences.emplace_back();
    for (TokenId id; ids >> id;) sequence.push_back(id);
  }
  return sequences;
}

std::vector<float> EmbedOrDie(BertEncoder& encoder, std::span<const TokenSequence> batch) {
  auto vectors = encoder.Encode(batch);
  if (vectors.ok()) return *std::move(vectors);
  std::cerr << vectors.status() << '\n';
  std::exit(1);
}

std::span<const TokenSequence> Part(const std::vector<TokenSequence>& sequences, size_t begin, size_t size) {
  return std::span(sequences).subspan(begin, std::min(size, sequences.size() - begin));
}

void Time(BertEncoder& encoder, size_t batch, const std::string& path) {
  const std::vector<TokenSequence> sequences = ReadSequences(path);
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < sequences.size(); i += batch) EmbedOrDie(encoder, Part(sequences, i, batch));
  std::cout << std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() << std::endl;
}

void Embed(BertEncoder& encoder, const std::string& path, const std::string& out_path) {
  const std::vector<TokenSequence> sequences = ReadSequences(path);
  std::ofstream out(out_path, std::ios::binary);
  for (size_t i = 0; i < sequences.size(); i += kBatch) {
    const std::vector<float> vectors = EmbedOrDie(encoder, Part(sequences, i, kBatch));
    out.write(reinterpret_cast<const char*>(vectors.data()),
              static_cast<std::streamsize>(vectors.size() * sizeof(float)));
  }
  out.close();
  std::cout << sequences.size() << std::endl;
}

int Main(const std::string& folder, const std::string& numbers, int threads) {
  BertEncoderOptions options;
  options.threads = threads;
  options.numbers = numbers == "fp32" ? BertNumbers::kFp32 : BertNumbers::kFp16;
  auto encoder = BertEncoder::Load(folder, "", options);
  if (!encoder.ok()) {
    std::cerr << encoder.status() << '\n';
    return 1;
  }
  size_t batch = 0;
  for (std::string command, path, out; std::cin >> command;) {
    if (command == "time" && std::cin >> batch >> path) Time(**encoder, batch, path);
    if (command == "embed" && std::cin >> path >> out) Embed(**encoder, path, out);
  }
  return 0;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: embed_bench FOLDER fp32|fp16 THREADS\n";
    return 2;
  }
  return retro::Main(argv[1], argv[2], std::stoi(argv[3]));
}
