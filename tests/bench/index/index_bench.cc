// Our side of `tests/bench/run.sh index`: makes the index of a shard from a file of vectors, with the settings that a
// service has by default but for one segment in place of many, and searches it on one thread in batches.
//   index_bench FOLDER DIMENSION VECTORS QUERIES BATCH THREADS SECONDS EFFORT...
// VECTORS: half precision, row after row; QUERIES: single precision. Prints a JSON line with the build's facts, then
// one an effort; the rows found go to FOLDER/found.EFFORT, ten 8-byte numbers a query.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "nlohmann/json.hpp"
#include "retriever_service/index/segmented_index.h"
#include "retriever_service/store/layout.h"
#include "tests/bench/bench.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kK = 10;
constexpr uint32_t kChunksADocument = 10;

// Row i becomes the chunk with counter i + 1.
void Fill(SegmentedIndex& index, std::string_view halves, size_t dimension) {
  const size_t rows = halves.size() / (dimension * kHalfBytes);
  const shardpb::Position position = MakePosition(1, 1);
  for (size_t first = 0; first < rows; first += kChunksADocument) {
    auto document = std::make_shared<IndexedDocument>();
    document->id = StrCat(first);
    document->first_chunk_id = MakeChunkId(first + 1, 0);
    document->chunk_count = static_cast<uint32_t>(std::min<size_t>(kChunksADocument, rows - first));
    if (index.Restore(document)) continue;
    const size_t bytes = dimension * kHalfBytes;
    std::vector<IndexChange> changes;
    changes.push_back(
        {document->id, document, std::string(halves.substr(first * bytes, document->chunk_count * bytes))});
    index.Apply(std::move(changes), position);
  }
  index.Filled();
}

void Search(const SegmentedIndex& index, std::span<const float> queries, size_t dimension, size_t batch,
            double seconds_least, float effort, const std::string& found_path) {
  std::vector<IndexQuery> all;
  all.reserve(queries.size() / dimension);
  for (size_t i = 0; i < queries.size(); i += dimension) all.push_back({queries.subspan(i, dimension), {}});
  const IndexSearchOptions options{.k = kK, .effort = effort};
  std::vector<uint64_t> found;
  uint64_t searched = 0;
  const Clock::time_point start = Clock::now();
  while (searched == 0 || SecondsSince(start) < seconds_least) {
    found.clear();
    for (size_t i = 0; i < all.size(); i += batch) {
      const auto some = std::span(all).subspan(i, std::min(batch, all.size() - i));
      const IndexAnswer answer = ValueOrDie(index.Search(some, options, CallContext()));
      for (const auto& hits : answer.hits) {
        for (const IndexHit& hit : hits) found.push_back((hit.chunk_id >> kSlotBits) - 1);
      }
    }
    searched += all.size();
  }
  const double seconds = SecondsSince(start);
  std::ofstream(found_path, std::ios::binary)
      .write(reinterpret_cast<const char*>(found.data()),
             static_cast<std::streamsize>(found.size() * sizeof(uint64_t)));
  std::cout << nlohmann::json{{"effort", effort}, {"queries_per_second", static_cast<double>(searched) / seconds}}
            << std::endl;
}

int Main(const std::vector<std::string>& arguments) {
  const std::string folder = arguments[0];
  const size_t dimension = std::stoul(arguments[1]);
  const MappedFile vectors = ValueOrDie(MappedFile::Open(arguments[2]));
  const std::string query_bytes = ValueOrDie(ReadFile(arguments[3]));
  const std::span queries(reinterpret_cast<const float*>(query_bytes.data()), query_bytes.size() / sizeof(float));
  SegmentedIndexOptions options;
  options.settings.threads = std::stoi(arguments[5]);
  options.settings.seal_rows = vectors.bytes().size() / (std::stoul(arguments[1]) * kHalfBytes);
  options.folder = folder + "/index";
  options.identity = {std::string(16, 'b'), 0, static_cast<int>(dimension), options.settings.kind};
  options.background = false;
  const Clock::time_point start = Clock::now();
  {
    SegmentedIndex index(options, MakePosition(1, 1));
    Fill(index, vectors.bytes(), dimension);
    ValueOrDie(index.Maintain());  // one segment of all of it
  }
  const double build_seconds = SecondsSince(start);
  const uint64_t before = ResidentBytes("RssAnon");
  const Clock::time_point opened = Clock::now();
  SegmentedIndex index(options, MakePosition(1, 1));
  Fill(index, vectors.bytes(), dimension);
  const double open_seconds = SecondsSince(opened);
  const IndexStats stats = index.Stats();
  std::cout << nlohmann::json{{"kind", stats.segments[0].kind},
                              {"build_seconds", build_seconds},
                              {"open_seconds", open_seconds},
                              {"index_bytes_a_vector",
                               static_cast<double>(stats.segments[0].memory_bytes) / static_cast<double>(stats.chunks)},
                              {"resident_bytes_before", before},
                              {"resident_bytes", ResidentBytes("RssAnon")}}
            << std::endl;
  for (size_t i = 7; i < arguments.size(); ++i) {
    Search(index, queries, dimension, std::stoul(arguments[4]), std::stod(arguments[6]), std::stof(arguments[i]),
           folder + "/found." + arguments[i]);
  }
  return 0;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc < 9) {
    std::fprintf(stderr, "usage: index_bench FOLDER DIMENSION VECTORS QUERIES BATCH THREADS SECONDS EFFORT...\n");
    return 2;
  }
  return retro::Main({argv + 1, argv + argc});
}
