#include "builder/content_maker.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "common/base/status_macros.h"
#include "retriever_service/ingest/collection_spec.h"
#include "retriever_service/ingest/document_change.h"
#include "trainer/parallel.h"

namespace retro {
namespace {

constexpr int64_t kDeviceBatchTokens = 32'768;  // nobody waits for a query between two batches

BatcherLimits LimitsFor(const std::string& device) {
  BatcherLimits limits;
  if (device != "cpu") limits.ingest_batch_tokens = kDeviceBatchTokens;
  return limits;
}

}  // namespace

ContentMaker::ContentMaker(const ContentOptions& options, std::shared_ptr<const Tokenizer> tokenizer,
                           std::vector<float> self_test, std::unique_ptr<Embedder> embedder)
    : chunk_size_(options.chunk_size),
      threads_(options.embedder.threads > 0 ? options.embedder.threads
                                            : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))),
      tokenizer_(std::move(tokenizer)),
      self_test_(std::move(self_test)),
      batcher_(std::move(embedder), LimitsFor(options.embedder.device)),
      embedding_(batcher_) {}

absl::StatusOr<std::unique_ptr<ContentMaker>> ContentMaker::Load(const ContentOptions& options) {
  RETRO_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadChunkingTokenizer(options.tokenizer));
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<Embedder> embedder, MakeEmbedder(options.embedder));
  RETRO_ASSIGN_OR_RETURN(std::vector<float> self_test, SelfTestVector(*embedder));
  return std::unique_ptr<ContentMaker>(
      new ContentMaker(options, std::move(tokenizer), std::move(self_test), std::move(embedder)));
}

pb::CollectionSpec ContentMaker::Spec(const std::string& collection) const {
  return MakeCollectionSpec(collection, *tokenizer_, chunk_size_, embedding_.info(), self_test_);
}

absl::Status ContentMaker::Fill(std::vector<shardpb::DocumentChange>& changes) {
  ParallelFor(changes.size(), threads_, [&](size_t i) {
    changes[i].clear_chunks();
    AddChunks(*tokenizer_, chunk_size_, changes[i]);
  });
  std::vector<shardpb::DocumentChange*> all;
  all.reserve(changes.size());
  for (shardpb::DocumentChange& change : changes) all.push_back(&change);
  return AddEmbeddedVectors(embedding_, CallContext(), all);
}

}  // namespace retro
