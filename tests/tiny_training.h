// A data set with neighbours and a model, small enough to train within a test.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "common/base/hash.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/checkpoints/random_init.h"
#include "generator_service/model/config.h"
#include "retriever_service/embed/hash_embedder.h"
#include "tests/test_paths.h"
#include "trainer/chunk_vectors.h"
#include "trainer/data_set.h"
#include "trainer/data_set_writer.h"
#include "trainer/nearest_chunks.h"
#include "trainer/token_files.h"

namespace retro {

inline constexpr int64_t kTinyChunk = 8;

inline std::string TinyTokenizerPath() { return SourcePath("common/tokenizer/retro-16k.model"); }

// m = 8, r = 16, three layers, CCA in the last two, mask_pad on.
inline ModelConfig TinyTrainingConfig() {
  ModelConfig config;
  config.width = 16;
  config.ffw_width = 32;
  config.heads = 2;
  config.head_size = 8;
  config.layers = 3;
  config.cca_layers = {2, 3};
  config.encoder_width = 16;
  config.encoder_ffw_width = 32;
  config.encoder_heads = 2;
  config.encoder_head_size = 8;
  config.encoder_layers = 2;
  config.encoder_cca_layers = {1};
  config.vocabulary = 16384;
  config.chunk_length = kTinyChunk;
  config.neighbour_length = 2 * kTinyChunk;
  config.max_length = 64;
  config.shared_embedding = true;
  config.mask_pad = true;
  return config;
}

// `count` documents of 1 to 60 words, drawn from few.
inline std::vector<std::string> TinyTexts(size_t count, uint32_t seed) {
  const std::vector<std::string> words = {"chunk", "store", "nearest", "the", "of", "reads", "writes", "token", "a"};
  std::mt19937 random(seed);
  std::vector<std::string> texts(count);
  for (std::string& text : texts) {
    const size_t length = 1 + random() % 60;
    for (size_t i = 0; i < length; ++i) text += (i == 0 ? "" : " ") + words[random() % words.size()];
  }
  return texts;
}

inline void WriteDocuments(const std::string& path, const std::vector<std::string>& texts) {
  std::ofstream file(path);
  for (size_t i = 0; i < texts.size(); ++i) file << R"({"id":")" << i << R"(","text":")" << texts[i] << "\"}\n";
}

inline TokenFileOptions TinyTokenFiles(const std::string& out, const std::vector<std::string>& documents) {
  return {.documents = documents, .tokenizer = TinyTokenizerPath(), .out = out, .chunk_length = kTinyChunk};
}

inline void Quietly(const std::string&) {}

// Token files, vectors of the hash embedder and k = 2 neighbours of `texts`, in `folder`.
inline void MakeTinyData(const std::string& folder, const std::vector<std::string>& texts) {
  ASSERT_TRUE(MakeFolder(folder).ok());
  WriteDocuments(folder + "/texts.jsonl", texts);
  const absl::Status written = WriteTokenFiles(TinyTokenFiles(folder, {folder + "/texts.jsonl"}), Quietly);
  ASSERT_TRUE(written.ok()) << written;
  const absl::StatusOr<DataSet> data = DataSet::Open(folder);
  ASSERT_TRUE(data.ok()) << data.status();
  HashEmbedder embedder(16);
  const auto tokenizer = LoadTokenizer(TinyTokenizerPath());
  const absl::Status embedded = EmbedChunks(*data, **tokenizer, embedder, {}, Quietly);
  ASSERT_TRUE(embedded.ok()) << embedded;
  const std::vector<const DataSet*> databases = {&*data};
  const absl::Status found = FindNearestChunks(*data, databases, {.k = 2}, Quietly);
  ASSERT_TRUE(found.ok()) << found;
}

// A model folder with random weights, which knows the tokenizer.
inline void MakeTinyModelFolder(const std::string& folder, const ModelConfig& config) {
  const auto tokenizer = LoadTokenizer(TinyTokenizerPath());
  const auto weights = RandomWeights(config, 3);
  ASSERT_TRUE(weights.ok());
  const CheckpointInfo info = {.config = config,
                               .tokenizer_file = "tokenizer.model",
                               .tokenizer_fingerprint = HexEncode((*tokenizer)->fingerprint())};
  ASSERT_TRUE(SaveCheckpoint(folder, info, *weights, TinyTokenizerPath()).ok());
}

}  // namespace retro
