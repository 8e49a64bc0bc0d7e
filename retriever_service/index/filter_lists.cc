#include "retriever_service/index/filter_lists.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <compare>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/hash/hash.h"
#include "common/base/status_macros.h"
#include "retriever_service/index/filter_tree.h"

namespace retro {
namespace {

// Strings of their own and values meet in the same lists, so what is asked of a value is asked of both.
ValueClass ClassOf(const std::string&) { return ValueClass::kString; }
std::partial_ordering Compare(const std::string& a, const std::string& b) { return a.compare(b) <=> 0; }
std::partial_ordering Compare(const std::string& a, const Value& b) {
  const auto* text = std::get_if<std::string>(&b);
  return text == nullptr ? std::partial_ordering::unordered : Compare(a, *text);
}

const std::string* TextOf(const std::string& value) { return &value; }
const std::string* TextOf(const Value& value) { return std::get_if<std::string>(&value); }

bool IsNumberLike(const std::string&) { return true; }
bool IsNumberLike(const Value& value) {
  const auto* number = std::get_if<double>(&value);
  return number == nullptr || !std::isnan(*number);
}

// Numbers as unsigned ones of the same order; whole numbers beyond 2^53 may become equal to others, never pass them.
uint64_t OrderedBits(double number) {
  const auto bits = std::bit_cast<uint64_t>(number + 0.0);  // -0 is 0
  constexpr uint64_t kSign = uint64_t{1} << 63;
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

uint64_t LeadingBits(const Value& value) {
  if (const auto* whole = std::get_if<int64_t>(&value)) return OrderedBits(static_cast<double>(*whole));
  if (const auto* number = std::get_if<double>(&value)) return OrderedBits(*number);
  return static_cast<uint64_t>(std::get<Time>(value).seconds) + (uint64_t{1} << 63);
}
uint64_t LeadingBits(const std::string&) { return 0; }  // strings have their bytes for it

uint64_t LeadingBytes(std::string_view text) {
  unsigned char bytes[sizeof(uint64_t)] = {};
  std::memcpy(bytes, text.data(), std::min(text.size(), sizeof bytes));
  uint64_t leading = 0;
  for (const unsigned char byte : bytes) leading = leading << 8 | byte;
  return leading;
}

template <typename T>
struct HashOfValue {
  size_t operator()(const T* value) const {
    const std::string* text = TextOf(*value);
    return text != nullptr ? absl::HashOf(*text) : absl::HashOf(LeadingBits(*value));
  }
};

template <typename T>
struct SameValue {
  bool operator()(const T* a, const T* b) const { return ClassOf(*a) == ClassOf(*b) && std::is_eq(Compare(*a, *b)); }
};

size_t CommonBytes(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

// ---------------------------------------------------------------- building

// Gathers a field's values in the order of documents, and then sorts the distinct ones.
template <typename T>
class FilterLists::Builder {
 public:
  void Add(const T& value, uint32_t document) {
    if (!IsNumberLike(value)) return;  // NaN is equal to nothing and in no range
    const auto [place, is_new] = places_.try_emplace(&value, static_cast<uint32_t>(values_.size()));
    if (is_new) values_.push_back(&value);
    entries_.push_back({place->second, document});
  }

  Lists<T> Finish() {
    const std::vector<Sorted> sorted = SortValues();
    std::vector<uint32_t> ends(values_.size());  // by place: of what is filled of the list
    for (const Entry& entry : entries_) ++ends[entry.place];
    Lists<T> lists;
    lists.values.reserve(sorted.size());
    lists.begins.reserve(sorted.size() + 1);
    uint32_t begin = 0;
    for (const Sorted& value : sorted) {
      lists.values.push_back(values_[value.place]);
      lists.begins.push_back(begin);
      begin += std::exchange(ends[value.place], begin);
    }
    lists.begins.push_back(begin);
    lists.documents.resize(entries_.size());
    for (const Entry& entry : entries_) lists.documents[ends[entry.place]++] = entry.document;
    return lists;
  }

 private:
  struct Entry {
    uint32_t place;  // of the value
    uint32_t document;
  };
  // A value by what mostly decides, so that sorting seldom looks at the value itself, which lies anywhere in memory.
  struct Sorted {
    ValueClass value_class;
    uint32_t place;
    uint64_t leading;
  };

  std::vector<Sorted> SortValues() const {
    const size_t common = CommonBytesOfStrings();
    std::vector<Sorted> sorted;
    sorted.reserve(values_.size());
    for (uint32_t place = 0; place < values_.size(); ++place) {
      const T& value = *values_[place];
      const std::string* text = TextOf(value);
      const uint64_t leading =
          text != nullptr ? LeadingBytes(std::string_view(*text).substr(common)) : LeadingBits(value);
      sorted.push_back({ClassOf(value), place, leading});
    }
    std::sort(sorted.begin(), sorted.end(), [this](const Sorted& a, const Sorted& b) {
      if (a.value_class != b.value_class) return a.value_class < b.value_class;
      if (a.leading != b.leading) return a.leading < b.leading;
      return std::is_lt(Compare(*values_[a.place], *values_[b.place]));
    });
    return sorted;
  }

  size_t CommonBytesOfStrings() const {
    const std::string* first = nullptr;
    size_t common = 0;
    for (const T* value : values_) {
      const std::string* text = TextOf(*value);
      if (text == nullptr) continue;
      if (first == nullptr) common = text->size();
      if (first == nullptr) first = text;
      common = CommonBytes(std::string_view(*first).substr(0, common), *text);
    }
    return common;
  }

  absl::flat_hash_map<const T*, uint32_t, HashOfValue<T>, SameValue<T>> places_;
  std::vector<const T*> values_;
  std::vector<Entry> entries_;
};

// One field after the other: a builder takes more memory than what it makes.
FilterLists::FilterLists(const std::vector<const IndexedDocument*>& documents)
    : documents_(static_cast<uint32_t>(documents.size())) {
  const auto gather = [&](auto add) {
    for (uint32_t at = 0; at < documents_; ++at) {
      if (documents[at] != nullptr) add(*documents[at], at);
    }
  };
  {
    Builder<std::string> ids;
    gather([&](const IndexedDocument& document, uint32_t at) { ids.Add(document.id, at); });
    ids_ = ids.Finish();
  }
  {
    Builder<std::string> sources;
    gather([&](const IndexedDocument& document, uint32_t at) {
      if (!document.source.empty()) sources.Add(document.source, at);
    });
    sources_ = sources.Finish();
  }
  absl::flat_hash_map<std::string_view, Builder<Value>> metadata;
  gather([&](const IndexedDocument& document, uint32_t at) {
    for (const auto& [key, values] : document.metadata) {
      Builder<Value>& builder = metadata[key];
      for (const Value& value : values) builder.Add(value, at);
    }
  });
  for (auto& [key, builder] : metadata) metadata_.emplace(key, std::exchange(builder, {}).Finish());
}

template <typename T>
size_t FilterLists::Lists<T>::memory_bytes() const {
  return values.capacity() * sizeof(const T*) + (begins.capacity() + documents.capacity()) * sizeof(uint32_t);
}

size_t FilterLists::memory_bytes() const {
  size_t bytes = ids_.memory_bytes() + sources_.memory_bytes();
  for (const auto& entry : metadata_) bytes += sizeof(decltype(metadata_)::value_type) + entry.second.memory_bytes();
  return bytes;
}

// ---------------------------------------------------------------- evaluating

class FilterLists::Evaluation {
 public:
  Evaluation(const FilterLists& lists, const CallContext& context) : lists_(lists), context_(context) {}

  absl::StatusOr<DocumentSet> Of(const CompiledFilter::Node& node) const {
    DocumentSet set(lists_.documents_);
    if (node.op == FilterOperator::kAllOf) {
      set.Complement();
      for (const auto& child : node.children) {
        RETRO_ASSIGN_OR_RETURN(const DocumentSet matching, Of(*child));
        set.Intersect(matching);
      }
      return set;
    }
    RETRO_RETURN_IF_ERROR(AddTo(set, node));
    return set;
  }

 private:
  // A set of all documents takes long to make: what is added to one gets none of its own.
  absl::Status AddTo(DocumentSet& set, const CompiledFilter::Node& node) const {
    RETRO_RETURN_IF_ERROR(context_.Check());
    switch (node.op) {
      case FilterOperator::kAllOf: {
        RETRO_ASSIGN_OR_RETURN(const DocumentSet matching, Of(node));
        set.Unite(matching);
        return absl::OkStatus();
      }
      case FilterOperator::kAnyOf:
        for (const auto& child : node.children) RETRO_RETURN_IF_ERROR(AddTo(set, *child));
        return absl::OkStatus();
      case FilterOperator::kNoneOf: {
        DocumentSet any(lists_.documents_);
        for (const auto& child : node.children) RETRO_RETURN_IF_ERROR(AddTo(any, *child));
        any.Complement();
        set.Unite(any);
        return absl::OkStatus();
      }
      default:
        AddOfField(node, set);
        return absl::OkStatus();
    }
  }

  void AddOfField(const CompiledFilter::Node& node, DocumentSet& set) const {
    if (node.field.builtin == pb::BUILTIN_FIELD_ID) return AddOf(node, lists_.ids_, set);
    if (node.field.builtin == pb::BUILTIN_FIELD_SOURCE) return AddOf(node, lists_.sources_, set);
    const auto lists = lists_.metadata_.find(node.field.metadata_key);
    if (lists != lists_.metadata_.end()) AddOf(node, lists->second, set);
  }

  template <typename T>
  static void AddOf(const CompiledFilter::Node& node, const Lists<T>& lists, DocumentSet& set) {
    if (node.op == FilterOperator::kExists) return Add(lists, 0, lists.values.size(), set);
    if (node.op == FilterOperator::kRange) {
      const Bound lower = BoundOf(node.lower), upper = BoundOf(node.upper);
      return AddBetween(lists, lower.value != nullptr ? lower : upper, lower, upper, set);
    }
    for (const Value& value : node.values) AddBetween(lists, {&value, true}, {&value, true}, {&value, true}, set);
  }

  struct Bound {
    const Value* value;  // null: none
    bool inclusive;
  };
  static Bound BoundOf(const std::optional<FilterBound>& bound) {
    return bound.has_value() ? Bound{&bound->value, bound->inclusive} : Bound{nullptr, false};
  }

  template <typename T>
  static void AddBetween(const Lists<T>& lists, Bound either, Bound lower, Bound upper, DocumentSet& set) {
    if (either.value == nullptr) return;  // no filter that compiles has a range without a bound
    const ValueClass value_class = ClassOf(*either.value);
    const auto is_before = [&](const T* value) {
      if (ClassOf(*value) != value_class) return ClassOf(*value) < value_class;
      if (lower.value == nullptr) return false;
      const std::partial_ordering order = Compare(*value, *lower.value);
      return lower.inclusive ? std::is_lt(order) : std::is_lteq(order);
    };
    const auto is_within = [&](const T* value) {
      if (ClassOf(*value) != value_class) return ClassOf(*value) < value_class;
      if (upper.value == nullptr) return true;
      const std::partial_ordering order = Compare(*value, *upper.value);
      return upper.inclusive ? std::is_lteq(order) : std::is_lt(order);
    };
    const auto begin = std::partition_point(lists.values.begin(), lists.values.end(), is_before);
    const auto end = std::partition_point(begin, lists.values.end(), is_within);  // none if the bounds are crossed
    Add(lists, begin - lists.values.begin(), end - lists.values.begin(), set);
  }

  // The lists of some values that follow each other.
  template <typename T>
  static void Add(const Lists<T>& lists, size_t begin, size_t end, DocumentSet& set) {
    for (uint32_t i = lists.begins[begin]; i < lists.begins[end]; ++i) set.Add(lists.documents[i]);
  }

  const FilterLists& lists_;
  const CallContext& context_;
};

absl::StatusOr<DocumentSet> FilterLists::Matching(const CompiledFilter& filter, const CallContext& context) const {
  return Evaluation(*this, context).Of(filter.root());
}

DocumentSet FilterLists::Matching(const CompiledFilter& filter) const { return *Matching(filter, CallContext()); }

}  // namespace retro
