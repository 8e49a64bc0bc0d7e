// Inverted lists for filters: for each value of each field (id, source, each metadata key) the documents that have it.
// The values are sorted, so a range of them is one piece of a list. They answer a filter with the exact set of
// documents for which CompiledFilter::Matches is true, in time that grows with the matches, not with the documents.
//
// Made once of the documents of a segment, or of a block of one that grows, and never changed; any thread may ask. They
// hold no value of their own, but point to those in the documents, which must outlive them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "retriever_service/index/document_set.h"
#include "retriever_service/index/filter.h"
#include "retriever_service/index/indexed_document.h"

namespace retro {

class FilterLists {
 public:
  // Documents are numbered as they come; null is one that nothing is known of.
  explicit FilterLists(const std::vector<const IndexedDocument*>& documents);

  // What is null is in the set if the filter is true for a document without any field.
  DocumentSet Matching(const CompiledFilter& filter) const;
  // CANCELLED or DEADLINE_EXCEEDED if the caller left: many documents and a large filter take seconds.
  absl::StatusOr<DocumentSet> Matching(const CompiledFilter& filter, const CallContext& context) const;
  size_t memory_bytes() const;

 private:
  // The lists of one field, whose values are of type T (std::string: id and source).
  template <typename T>
  struct Lists {
    std::vector<const T*> values;     // distinct, in the order of SortsBefore
    std::vector<uint32_t> begins;     // a value and the end: where its list begins
    std::vector<uint32_t> documents;  // list after list
    size_t memory_bytes() const;
  };
  template <typename T>
  class Builder;
  class Evaluation;

  const uint32_t documents_;
  Lists<std::string> ids_;
  Lists<std::string> sources_;
  absl::flat_hash_map<std::string_view, Lists<Value>> metadata_;  // by key
};

}  // namespace retro
