// What benchmarks of a store have in it: the vectors that ../vectors/make.sh made, as documents of kChunksADocument
// chunks with texts and tokens of the usual size. Whatever fails ends the program.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "common/base/file.h"
#include "common/document/protos.h"
#include "retriever_service/query/shard_map.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

inline constexpr uint32_t kBenchDimension = 384;
inline constexpr uint32_t kChunksADocument = 10;
inline constexpr uint32_t kBenchK = 10;

class BenchVectors {
 public:
  explicit BenchVectors(const std::string& folder);

  uint64_t rows() const;
  uint32_t queries() const;
  // Half precision.
  std::string_view Row(uint64_t row) const;
  std::span<const float> Query(uint32_t query) const;
  // How many of the kBenchK nearest of a query are among what was found for it.
  int RightOf(uint32_t query, const pb::QueryResult& found) const;

 private:
  MappedFile vectors_, queries_, nearest_;
};

pb::SearchRequest MakeSearch(const BenchVectors& vectors, uint32_t query, const std::string& embedder_fingerprint,
                             float effort);

// Document `number` with rows number * kChunksADocument and on.
shardpb::DocumentChange MakeDocument(const BenchVectors& vectors, uint64_t number);

// Writes the rows that are not there yet, several documents a change; calls `after_change` after each.
void FillStore(const BenchVectors& vectors, ShardMap& shards, const std::function<void()>& after_change);

}  // namespace retro
