// Finds the chunks whose vectors are nearest to a query's. Derived from the store: filled from it at the start, then
// told of each durable change. One index a collection.
//
// Threads: Apply belongs to one thread; everything else may be called from any. A search sees the index as one Apply
// left it, never in between.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/document/protos.h"
#include "retriever_service/index/filter.h"
#include "retriever_service/index/indexed_document.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// A document that is new or another one now, or gone.
struct IndexChange {
  std::string document_id;
  std::shared_ptr<const IndexedDocument> document;  // null: gone
  std::string vectors;  // half precision, [chunk_count, dimension]; empty: those of the document that it replaces
};

struct IndexQuery {
  std::span<const float> vector;                  // [dimension]
  absl::flat_hash_set<std::string> excluded_ids;  // documents to leave out
};

struct IndexSearchOptions {
  uint32_t k = 2;
  std::optional<float> effort;                    // 0 ... 1, see tuning.h; none: every chunk is compared
  std::optional<float> max_distance;              // squared L2
  const CompiledFilter* filter = nullptr;         // null: all documents
  uint32_t chunks_per_document_max = 0;           // 0: no bound
  absl::flat_hash_set<std::string> excluded_ids;  // documents to leave out, beside each query's own
};

struct IndexHit {
  float distance;  // squared L2
  uint64_t chunk_id;
  std::shared_ptr<const IndexedDocument> document;  // as it was when this was searched
};

struct IndexAnswer {
  std::vector<std::vector<IndexHit>> hits;  // a query
  uint64_t generation = 0;                  // of what was searched
};

struct SegmentSize {
  std::string kind;           // "exact", or the lists' as in tuning.h
  uint64_t rows = 0;          // deleted ones included
  uint64_t deleted = 0;       // of these
  uint64_t memory_bytes = 0;  // without what is mapped
};

struct IndexStats {
  uint64_t documents = 0;
  uint64_t chunks = 0;  // that can be found
  uint64_t text_bytes = 0;
  uint64_t generation = 0;  // grows whenever segments are swapped
  pb::IndexState state = pb::INDEX_STATE_EXACT;
  std::vector<SegmentSize> segments;
  uint64_t document_bytes = 0;           // of memory, of what is known of documents
  uint64_t building_bytes = 0;           // of memory, of segments under construction
  std::optional<float> measured_recall;  // recall@10 at effort 0.5 against exact; none: not measured yet
};

class VectorIndex {
 public:
  virtual ~VectorIndex() = default;

  // All changes, in order, as one visible step. They must fit the collection; a removal of an unknown id is ignored.
  // `position`: of the newest of them in the store.
  virtual void Apply(std::vector<IndexChange> changes, const shardpb::Position& position) = 0;

  // One list of hits a query, nearest first, of equal distance the lesser chunk id first; fewer than k only if no more
  // are allowed, whatever the effort; below `max_distance`, as many as the effort finds. CANCELLED or DEADLINE_EXCEEDED
  // if the caller leaves meanwhile.
  virtual absl::StatusOr<IndexAnswer> Search(std::span<const IndexQuery> queries, const IndexSearchOptions& options,
                                             const CallContext& context) const = 0;

  // Ids of documents for which the filter is true and whose chunks are no newer than that with the id `newest`, in no
  // order: of all, or of `most` if there are more. CANCELLED or DEADLINE_EXCEEDED as Search, and so the next two.
  virtual absl::StatusOr<std::vector<std::string>> MatchingDocuments(const CompiledFilter& filter, uint64_t newest,
                                                                     size_t most, const CallContext& context) const = 0;
  // The greatest id of their first chunks for all documents for which the filter is true; 0 if there is none.
  virtual absl::StatusOr<uint64_t> NewestMatching(const CompiledFilter& filter, const CallContext& context) const = 0;
  // How many there are.
  virtual absl::StatusOr<uint64_t> CountMatching(const CompiledFilter& filter, const CallContext& context) const = 0;

  virtual IndexStats Stats() const = 0;
};

}  // namespace retro
