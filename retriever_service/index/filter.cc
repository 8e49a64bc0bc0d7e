#include "retriever_service/index/filter.h"

#include <algorithm>
#include <compare>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/document_limits.h"
#include "retriever_service/index/filter_tree.h"

namespace retro {
namespace {

using Node = CompiledFilter::Node;

using Operator = FilterOperator;

// ---------------------------------------------------------------- compiling

class Compiler {
 public:
  absl::StatusOr<std::unique_ptr<const Node>> Compile(const pb::Filter& filter, const std::string& path, int depth) {
    if (depth > kFilterDepthMax) {
      return FieldError(path, StrCat("nested deeper than ", kFilterDepthMax, " levels"));
    }
    RETRO_RETURN_IF_ERROR(Count(1, path));
    switch (filter.node_case()) {
      case pb::Filter::kAllOf:
        return List(Operator::kAllOf, filter.all_of(), path + ".all_of", depth);
      case pb::Filter::kAnyOf:
        return List(Operator::kAnyOf, filter.any_of(), path + ".any_of", depth);
      case pb::Filter::kNoneOf:
        return List(Operator::kNoneOf, filter.none_of(), path + ".none_of", depth);
      case pb::Filter::kEquals:
        return In(filter.equals().field(), std::span(&filter.equals().value(), 1), path + ".equals", ".value");
      case pb::Filter::kIn: {
        const std::vector<pb::MetadataValue> values(filter.in().values().begin(), filter.in().values().end());
        return In(filter.in().field(), values, path + ".in", ".values");
      }
      case pb::Filter::kRange:
        return Range(filter.range(), path + ".range");
      case pb::Filter::kExists: {
        auto node = std::make_unique<Node>();
        node->op = Operator::kExists;
        RETRO_ASSIGN_OR_RETURN(node->field, CompileField(filter.exists().field(), path + ".exists.field"));
        return node;
      }
      case pb::Filter::NODE_NOT_SET:
        break;
    }
    return FieldError(path, "set one of all_of, any_of, none_of, equals, in, range, exists");
  }

 private:
  absl::Status Count(int more, const std::string& path) {
    size_ += more;
    if (size_ <= kFilterSizeMax) return absl::OkStatus();
    return FieldError(path, StrCat("the filter has more than ", kFilterSizeMax, " conditions and values"));
  }

  absl::StatusOr<std::unique_ptr<const Node>> List(Operator op, const pb::FilterList& list, const std::string& path,
                                                   int depth) {
    auto node = std::make_unique<Node>();
    node->op = op;
    for (int i = 0; i < list.filters_size(); ++i) {
      RETRO_ASSIGN_OR_RETURN(auto child, Compile(list.filters(i), StrCat(path, ".filters[", i, "]"), depth + 1));
      node->children.push_back(std::move(child));
    }
    return node;
  }

  absl::StatusOr<std::unique_ptr<const Node>> In(const pb::FilterField& field,
                                                 std::span<const pb::MetadataValue> values, const std::string& path,
                                                 std::string_view values_name) {
    auto node = std::make_unique<Node>();
    node->op = Operator::kIn;
    RETRO_ASSIGN_OR_RETURN(node->field, CompileField(field, path + ".field"));
    if (values.empty()) return FieldError(StrCat(path, values_name), "give at least one value");
    RETRO_RETURN_IF_ERROR(Count(static_cast<int>(values.size()), path));
    for (const pb::MetadataValue& value : values) {
      RETRO_RETURN_IF_ERROR(CheckMetadataValue(value, StrCat(path, values_name)));
      node->values.push_back(ToValue(value));
    }
    std::sort(node->values.begin(), node->values.end(), SortsBefore);
    return node;
  }

  absl::StatusOr<std::unique_ptr<const Node>> Range(const pb::RangeFilter& range, const std::string& path) {
    auto node = std::make_unique<Node>();
    node->op = Operator::kRange;
    RETRO_ASSIGN_OR_RETURN(node->field, CompileField(range.field(), path + ".field"));
    if ((range.has_greater_than() && range.has_at_least()) || (range.has_less_than() && range.has_at_most())) {
      return FieldError(path, "give one lower and one upper bound at most");
    }
    if (range.has_greater_than() || range.has_at_least()) {
      const bool inclusive = range.has_at_least();
      RETRO_ASSIGN_OR_RETURN(node->lower, CompileBound(inclusive ? range.at_least() : range.greater_than(), inclusive,
                                                       path + (inclusive ? ".at_least" : ".greater_than")));
    }
    if (range.has_less_than() || range.has_at_most()) {
      const bool inclusive = range.has_at_most();
      RETRO_ASSIGN_OR_RETURN(node->upper, CompileBound(inclusive ? range.at_most() : range.less_than(), inclusive,
                                                       path + (inclusive ? ".at_most" : ".less_than")));
    }
    if (!node->lower.has_value() && !node->upper.has_value()) return FieldError(path, "give at least one bound");
    if (node->lower.has_value() && node->upper.has_value() &&
        ClassOf(node->lower->value) != ClassOf(node->upper->value)) {
      return FieldError(path, "the bounds are of different kinds");
    }
    return node;
  }

  absl::StatusOr<FilterBound> CompileBound(const pb::MetadataValue& value, bool inclusive, const std::string& path) {
    RETRO_RETURN_IF_ERROR(Count(1, path));
    RETRO_RETURN_IF_ERROR(CheckMetadataValue(value, path));
    return FilterBound{ToValue(value), inclusive};
  }

  static absl::StatusOr<FilterField> CompileField(const pb::FilterField& field, const std::string& path) {
    FilterField compiled;
    switch (field.field_case()) {
      case pb::FilterField::kBuiltin:
        if (field.builtin() != pb::BUILTIN_FIELD_ID && field.builtin() != pb::BUILTIN_FIELD_SOURCE) {
          return FieldError(path + ".builtin", "not a field that documents have");
        }
        compiled.builtin = field.builtin();
        return compiled;
      case pb::FilterField::kMetadataKey:
        if (field.metadata_key().empty()) return FieldError(path + ".metadata_key", "the key is empty");
        if (field.metadata_key().size() > kMetadataKeyBytesMax) {
          return FieldError(path + ".metadata_key", StrCat(field.metadata_key().size(), " bytes, at most ",
                                                           kMetadataKeyBytesMax, " are allowed"));
        }
        compiled.metadata_key = field.metadata_key();
        return compiled;
      case pb::FilterField::FIELD_NOT_SET:
        break;
    }
    return FieldError(path, "set builtin or metadata_key");
  }

  int size_ = 0;
};

// ---------------------------------------------------------------- evaluating

bool Holds(const Node& node, const Value& value) {
  switch (node.op) {
    case Operator::kIn:
      return std::binary_search(node.values.begin(), node.values.end(), value, SortsBefore);
    case Operator::kRange: {
      if (node.lower.has_value()) {
        const std::partial_ordering order = Compare(value, node.lower->value);
        if (!(node.lower->inclusive ? std::is_gteq(order) : std::is_gt(order))) return false;
      }
      if (node.upper.has_value()) {
        const std::partial_ordering order = Compare(value, node.upper->value);
        if (!(node.upper->inclusive ? std::is_lteq(order) : std::is_lt(order))) return false;
      }
      return true;
    }
    default:
      return true;  // exists
  }
}

// True if any value of the node's field satisfies it. An empty source counts as none.
bool AnyValueHolds(const Node& node, const IndexedDocument& document) {
  if (node.field.builtin == pb::BUILTIN_FIELD_ID) return Holds(node, document.id);
  if (node.field.builtin == pb::BUILTIN_FIELD_SOURCE) {
    return !document.source.empty() && Holds(node, document.source);
  }
  const std::vector<Value>* values = document.FindMetadata(node.field.metadata_key);
  return values != nullptr &&
         std::any_of(values->begin(), values->end(), [&](const Value& value) { return Holds(node, value); });
}

bool Evaluate(const Node& node, const IndexedDocument& document) {
  const auto holds = [&](const std::unique_ptr<const Node>& child) { return Evaluate(*child, document); };
  switch (node.op) {
    case Operator::kAllOf:
      return std::all_of(node.children.begin(), node.children.end(), holds);
    case Operator::kAnyOf:
      return std::any_of(node.children.begin(), node.children.end(), holds);
    case Operator::kNoneOf:
      return std::none_of(node.children.begin(), node.children.end(), holds);
    default:
      return AnyValueHolds(node, document);
  }
}

}  // namespace

CompiledFilter::CompiledFilter(std::unique_ptr<const Node> root) : root_(std::move(root)) {}
CompiledFilter::CompiledFilter(CompiledFilter&&) noexcept = default;
CompiledFilter& CompiledFilter::operator=(CompiledFilter&&) noexcept = default;
CompiledFilter::~CompiledFilter() = default;

absl::StatusOr<CompiledFilter> CompiledFilter::Compile(const pb::Filter& filter, std::string_view field) {
  RETRO_ASSIGN_OR_RETURN(auto root, Compiler().Compile(filter, std::string(field), /*depth=*/1));
  return CompiledFilter(std::move(root));
}

bool CompiledFilter::Matches(const IndexedDocument& document) const { return Evaluate(*root_, document); }

}  // namespace retro
