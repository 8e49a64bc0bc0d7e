// Tokenizer and embedder of a build: they cut documents into chunks and give these their vectors.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/document/protos.h"
#include "common/tokenizer/tokenizer.h"
#include "retriever_service/embed/batcher.h"
#include "retriever_service/embedder_flags.h"
#include "retriever_service/query/embedding.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

struct ContentOptions {
  std::string tokenizer;
  uint32_t chunk_size = 64;
  EmbedderSettings embedder;
};

// Not thread-safe.
class ContentMaker {
 public:
  static absl::StatusOr<std::unique_ptr<ContentMaker>> Load(const ContentOptions& options);

  pb::CollectionSpec Spec(const std::string& collection) const;
  // Chunks with vectors for all of `changes`, whose chunks there may be are dropped. Vectors depend on `changes` alone.
  absl::Status Fill(std::vector<shardpb::DocumentChange>& changes);

 private:
  ContentMaker(const ContentOptions& options, std::shared_ptr<const Tokenizer> tokenizer, std::vector<float> self_test,
               std::unique_ptr<Embedder> embedder);

  const uint32_t chunk_size_;
  const int threads_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const std::vector<float> self_test_;
  EmbedBatcher batcher_;
  Embedding embedding_;
};

}  // namespace retro
