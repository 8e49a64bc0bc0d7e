#include "retriever_service/index_flags.h"

#include <map>
#include <string>

#include "retriever_service/index/tuning.h"

namespace retro {
namespace {

constexpr uint64_t kSealChunksMax = uint64_t{1} << 30;
constexpr int kIndexThreadsMax = 1024;

}  // namespace

void AddIndexFlags(CLI::App& app, IndexSettings& settings) {
  constexpr char kIndex[] = "Index (made again from the store when these change)";
  static const std::map<std::string, SegmentKind> kKinds = {
      {"exact", SegmentKind::kExact}, {"sq8", SegmentKind::kSq8}, {"pq4", SegmentKind::kPq4}};
  app.add_option("--index-kind", settings.kind,
                 "How sealed segments find candidates, which are then compared with the stored vectors: pq4 (4-bit "
                 "product quantisation), sq8 (a byte a coordinate), exact (all are compared)")
      ->transform(CLI::CheckedTransformer(kKinds).description("{exact,pq4,sq8}"))
      ->default_str("pq4")
      ->group(kIndex);
  app.add_option("--index-seal-chunks", settings.seal_rows,
                 "Chunks that are compared one by one in memory until a segment is made of them; a store with fewer is "
                 "searched exactly")
      ->check(CLI::Range(uint64_t{1}, kSealChunksMax))
      ->capture_default_str()
      ->group(kIndex);
  app.add_option("--index-threads", settings.threads, "Threads that make segments, in the background")
      ->check(CLI::Range(1, kIndexThreadsMax))
      ->capture_default_str()
      ->group(kIndex);
}

}  // namespace retro
