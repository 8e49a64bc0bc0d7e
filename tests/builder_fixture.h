// Stores built in this process by the commands of retro-build, and what they answer.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "builder/command.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "retriever_service/cluster/cluster_file.h"
#include "retriever_service/embed/hash_embedder.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/store/layout.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace retro {

inline constexpr int kBuildDimension = 16;

// `retro-build ARGUMENTS...`, its exit code.
inline int RunBuilder(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "retro-build");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  return RunProgram("retro-build", "", {AddShardCommand, AddReshardCommand, AddReembedCommand, AddTrainingDataCommand},
                    static_cast<int>(arguments.size()), argv.data());
}

// What `shard` and `reembed` need beside documents and target.
inline std::vector<std::string> ContentArguments(int chunk_size = 8, int dimension = kBuildDimension) {
  return {"--tokenizer",  TinyTokenizerPath(), "--embedder", StrCat("hash:", dimension),
          "--chunk-size", StrCat(chunk_size)};
}

inline std::vector<std::string> Joined(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Documents of 1 to 40 words of which hardly any two chunks are equal.
inline std::vector<std::string> DistinctTexts(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::string> texts(count);
  for (std::string& text : texts) {
    const size_t words = 1 + random() % 40;
    for (size_t i = 0; i < words; ++i) {
      if (i > 0) text += ' ';
      for (int letter = 0; letter < 10; ++letter) text += static_cast<char>('a' + random() % 26);
    }
  }
  return texts;
}

// A cluster in which nothing runs yet, its slots dealt out evenly.
inline void WriteClusterFile(const std::string& path, uint32_t shards, char store_id) {
  ClusterConfig config;
  config.version = 1;
  config.cluster = "built";
  config.store_id = std::string(kStoreIdBytes, store_id);
  for (uint32_t i = 0; i < shards; ++i) {
    ShardConfig shard;
    shard.first_slot = (kSlotCount * i + shards - 1) / shards;
    shard.last_slot = (kSlotCount * (i + 1) + shards - 1) / shards - 1;
    shard.primary = StrCat("r", i);
    shard.replicas = {{shard.primary, StrCat("localhost:", 7000 + i)}};
    config.shards.push_back(shard);
  }
  ASSERT_TRUE(WriteFileAtomically(path, FormatClusterFile(config)).ok());
}

inline Store::Digest DigestOf(const std::string& folder) {
  const auto store = Store::OpenSnapshot(folder);
  EXPECT_TRUE(store.ok()) << store.status();
  if (!store.ok()) return {};
  const auto digest = (*store)->ComputeDigest(CallContext());
  EXPECT_TRUE(digest.ok()) << digest.status();
  return digest.value_or(Store::Digest());
}

// A built shard, opened as the program that will serve it opens it.
inline std::unique_ptr<LocalShard> OpenBuilt(const std::string& folder, int dimension = kBuildDimension) {
  LocalShardOptions options;
  const auto identity = Store::OpenSnapshot(folder);
  EXPECT_TRUE(identity.ok()) << identity.status();
  if (!identity.ok()) return nullptr;
  options.store.path = folder;
  options.store.cluster = (*identity)->identity().cluster;
  options.store.shard = (*identity)->identity().shard;
  options.store.shard_count = (*identity)->identity().shard_count;
  options.default_collection = (*identity)->FindCollection("")->spec;
  EXPECT_EQ(options.default_collection->dimension(), static_cast<uint32_t>(dimension));
  auto shard = LocalShard::Open(options);
  EXPECT_TRUE(shard.ok()) << shard.status();
  return shard.ok() ? *std::move(shard) : nullptr;
}

// What searches for `texts` find, all shards together, nearest first: document, chunk, continuation.
inline std::vector<std::string> AnswersOf(const std::vector<std::string>& folders,
                                          const std::vector<std::string>& texts) {
  HashEmbedder embedder(kBuildDimension);
  std::vector<shardpb::SearchRequest> requests;
  constexpr uint32_t kNeighbours = 4;
  for (const std::string& text : texts) {
    const std::vector<TokenSequence> one = {embedder.Encode(text, TextKind::kQuery)};
    const std::vector<float> vector = *embedder.Embed(one);
    shardpb::SearchRequest& request = requests.emplace_back();
    request.set_k(4 * kNeighbours);  // of equally near ones a shard gives any: more are asked for than are compared
    request.add_queries()->mutable_vector()->mutable_values()->Assign(vector.begin(), vector.end());
  }
  std::vector<std::vector<std::pair<float, std::string>>> found(texts.size());
  for (const std::string& folder : folders) {
    const auto shard = OpenBuilt(folder);
    for (size_t q = 0; q < texts.size(); ++q) {
      const auto response = shard->Search(requests[q], CallContext());
      EXPECT_TRUE(response.ok()) << response.status();
      for (const pb::Neighbour& n : response->results(0).neighbours()) {
        found[q].emplace_back(n.distance(), StrCat(n.document_id(), "#", n.chunk().chunk_number(), " ", n.title(), " ",
                                                   n.chunk().text(), "|", n.continuation().text()));
      }
    }
  }
  std::vector<std::string> answers;
  for (auto& query : found) {
    std::sort(query.begin(), query.end());
    for (size_t i = 0; i < query.size() && i < kNeighbours; ++i) {
      answers.push_back(query[i].second);
    }
  }
  return answers;
}

}  // namespace retro
