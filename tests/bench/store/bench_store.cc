#include "tests/bench/store/bench_store.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <random>
#include <vector>

#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "tests/bench/bench.h"

namespace retro {
namespace {

constexpr size_t kRowBytes = kBenchDimension * kHalfBytes;
constexpr uint64_t kDocumentsAChange = 64;
constexpr int kTokensAChunk = 64;
constexpr int kWordsAChunk = 40;  // some 250 bytes
constexpr int32_t kTokens = 16'000;

void AddWords(std::minstd_rand& random, std::string& text) {
  static constexpr std::array kWords = {"harbour", "of",     "lighthouse", "package", "kernel",  "the",
                                        "history", "river",  "engine",     "and",     "paper",   "mountain",
                                        "letter",  "was",    "window",     "music",   "garden",  "in",
                                        "winter",  "copper", "island",     "with",    "library", "is"};
  for (int i = 0; i < kWordsAChunk; ++i) text += StrCat(kWords[random() % kWords.size()], " ");
}

uint64_t RowOf(const pb::Neighbour& neighbour) {
  return std::stoull(neighbour.document_id().substr(1)) * kChunksADocument + neighbour.chunk().chunk_number();
}

uint64_t DocumentsOf(ShardMap& shards) {
  uint64_t documents = 0;
  for (uint32_t shard = 0; shard < shards.size(); ++shard) {
    const shardpb::StatsResponse stats = ValueOrDie(shards.shard(shard).Stats({}, CallContext()));
    for (const auto& collection : stats.stats().collections()) documents += collection.documents();
  }
  return documents;
}

}  // namespace

BenchVectors::BenchVectors(const std::string& folder)
    : vectors_(ValueOrDie(MappedFile::Open(folder + "/base.f16"))),
      queries_(ValueOrDie(MappedFile::Open(folder + "/queries.f32"))),
      nearest_(ValueOrDie(MappedFile::Open(folder + "/truth.i64"))) {}

uint64_t BenchVectors::rows() const { return vectors_.bytes().size() / kRowBytes; }

uint32_t BenchVectors::queries() const {
  return static_cast<uint32_t>(queries_.bytes().size() / (kBenchDimension * sizeof(float)));
}

std::string_view BenchVectors::Row(uint64_t row) const { return vectors_.bytes().substr(row * kRowBytes, kRowBytes); }

std::span<const float> BenchVectors::Query(uint32_t query) const {
  return {reinterpret_cast<const float*>(queries_.bytes().data()) + size_t{query} * kBenchDimension, kBenchDimension};
}

int BenchVectors::RightOf(uint32_t query, const pb::QueryResult& found) const {
  const std::span nearest(reinterpret_cast<const uint64_t*>(nearest_.bytes().data()) + size_t{query} * kBenchK,
                          kBenchK);
  return static_cast<int>(std::ranges::count_if(found.neighbours(), [&](const pb::Neighbour& neighbour) {
    return std::ranges::count(nearest, RowOf(neighbour)) > 0;
  }));
}

pb::SearchRequest MakeSearch(const BenchVectors& vectors, uint32_t query, const std::string& embedder_fingerprint,
                             float effort) {
  pb::SearchRequest request;
  request.set_k(kBenchK);
  request.mutable_effort()->set_level(effort);
  pb::Query& wanted = *request.add_queries();
  wanted.set_embedder_fingerprint(embedder_fingerprint);
  wanted.mutable_vector()->mutable_values()->Add(vectors.Query(query).begin(), vectors.Query(query).end());
  return request;
}

shardpb::DocumentChange MakeDocument(const BenchVectors& vectors, uint64_t number) {
  std::minstd_rand random(static_cast<uint32_t>(number + 1));
  shardpb::DocumentChange change;
  pb::Document& document = *change.mutable_document();
  document.set_id(StrCat("d", number));
  document.set_title(StrCat("Document ", number));
  const uint64_t end = std::min((number + 1) * kChunksADocument, vectors.rows());
  for (uint64_t row = number * kChunksADocument; row < end; ++row) {
    shardpb::ChunkContent& chunk = *change.add_chunks();
    AddWords(random, *document.mutable_text());
    chunk.set_end(document.text().size());
    for (int i = 0; i < kTokensAChunk; ++i) chunk.add_token_ids(static_cast<int32_t>(random() % kTokens));
    chunk.set_vector_fp16(std::string(vectors.Row(row)));
  }
  change.set_content_hash(ContentHash(document));
  change.set_text_hash(TextHash(document.text()));
  return change;
}

void FillStore(const BenchVectors& vectors, ShardMap& shards, const std::function<void()>& after_change) {
  const pb::CollectionSpec spec = ValueOrDie(shards.Collection(""));
  const uint64_t documents = (vectors.rows() + kChunksADocument - 1) / kChunksADocument;
  for (uint64_t first = DocumentsOf(shards) / kDocumentsAChange * kDocumentsAChange; first < documents;
       first += kDocumentsAChange) {
    std::vector<shardpb::WriteRequest> requests(shards.size());
    for (uint64_t i = first; i < std::min(first + kDocumentsAChange, documents); ++i) {
      shardpb::DocumentChange change = MakeDocument(vectors, i);
      *requests[shards.ShardOfDocument(change.document().id())].add_changes() = std::move(change);
    }
    for (uint32_t shard = 0; shard < shards.size(); ++shard) {
      requests[shard].set_embedder_fingerprint(spec.embedder_fingerprint());
      requests[shard].set_tokenizer_fingerprint(spec.tokenizer_fingerprint());
      if (requests[shard].changes_size() > 0) ValueOrDie(shards.shard(shard).Write(requests[shard], CallContext()));
    }
    after_change();
  }
}

}  // namespace retro
