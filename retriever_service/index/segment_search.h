// One search as the segments see it: what each is asked, and at which step of the index.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "common/base/call_context.h"
#include "retriever_service/index/top_k.h"
#include "retriever_service/index/vector_index.h"

namespace retro {

// A row or document that nothing removed yet, and one that no step may see.
inline constexpr uint64_t kNeverRemoved = std::numeric_limits<uint64_t>::max();
inline constexpr uint64_t kRemovedBeforeAll = 0;
inline constexpr uint64_t kNewestStep = kNeverRemoved - 1;  // sees what was not removed at all

struct SegmentSearch {
  std::span<const IndexQuery> queries;
  const IndexSearchOptions& options;
  uint64_t step;  // what was removed at this step or before is not seen
  uint64_t rows;  // that may be found, in all segments together
  const CallContext& context;

  bool IsExcluded(size_t query, const IndexedDocument& document) const {
    const auto among = [&](const auto& ids) { return !ids.empty() && ids.contains(document.id); };
    return among(queries[query].excluded_ids) || among(options.excluded_ids);
  }
  TopK EmptyBest() const {
    return TopK(options.k, options.chunks_per_document_max,
                options.max_distance.value_or(std::numeric_limits<float>::infinity()));
  }
};

}  // namespace retro
