// A compiled filter as a tree, for who evaluates one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "retriever_service/index/filter.h"
#include "retriever_service/index/indexed_document.h"

namespace retro {

enum class FilterOperator { kAllOf, kAnyOf, kNoneOf, kIn, kRange, kExists };

struct FilterField {
  pb::BuiltinField builtin = pb::BUILTIN_FIELD_UNSPECIFIED;  // unspecified: metadata
  std::string metadata_key;
};

struct FilterBound {
  Value value;
  bool inclusive;
};

struct CompiledFilter::Node {
  FilterOperator op = FilterOperator::kAllOf;
  std::vector<std::unique_ptr<const Node>> children;  // all, any, none
  FilterField field;                                  // the others
  std::vector<Value> values;                          // in: as SortsBefore has them; equals is an `in` of one value
  std::optional<FilterBound> lower, upper;            // range: of one class
};

}  // namespace retro
