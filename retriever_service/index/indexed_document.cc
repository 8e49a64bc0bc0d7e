#include "retriever_service/index/indexed_document.h"

#include <algorithm>
#include <cmath>

namespace retro {
namespace {

// Exact where a conversion to double would round: beyond 2^53.
std::partial_ordering CompareWhole(int64_t whole, double number) {
  constexpr double kTwoTo63 = 9223372036854775808.0;
  if (std::isnan(number)) return std::partial_ordering::unordered;
  if (number >= kTwoTo63) return std::partial_ordering::less;
  if (number < -kTwoTo63) return std::partial_ordering::greater;
  const double floor = std::floor(number);
  const auto floor_whole = static_cast<int64_t>(floor);
  if (whole != floor_whole) return whole <=> floor_whole;
  return floor < number ? std::partial_ordering::less : std::partial_ordering::equivalent;
}

std::partial_ordering Reverse(std::partial_ordering order) {
  return 0 <=> order;  // NOLINT(modernize-use-nullptr): clang-tidy 14 takes the 0 for a pointer
}

// What an allocator hands out for `bytes`.
size_t HeapBytes(size_t bytes) {
  constexpr size_t kHeader = 8, kStep = 16;
  return bytes == 0 ? 0 : (bytes + kHeader + kStep - 1) / kStep * kStep;
}

size_t HeapBytes(const std::string& text) {
  static const size_t kInside = std::string().capacity();
  return text.capacity() <= kInside ? 0 : HeapBytes(text.capacity() + 1);
}

}  // namespace

size_t MemoryBytes(const IndexedDocument& document) {
  size_t bytes = HeapBytes(sizeof(IndexedDocument)) + HeapBytes(document.id) + HeapBytes(document.title) +
                 HeapBytes(document.source) + HeapBytes(document.content_hash) +
                 HeapBytes(document.metadata.capacity() * sizeof(document.metadata[0]));
  for (const auto& [key, values] : document.metadata) {
    bytes += HeapBytes(key) + HeapBytes(values.capacity() * sizeof(Value));
    for (const Value& value : values) {
      if (const auto* text = std::get_if<std::string>(&value)) bytes += HeapBytes(*text);
    }
  }
  return bytes;
}

ValueClass ClassOf(const Value& value) {
  if (std::holds_alternative<std::string>(value)) return ValueClass::kString;
  return std::holds_alternative<Time>(value) ? ValueClass::kTime : ValueClass::kNumber;
}

std::partial_ordering Compare(const Value& a, const Value& b) {
  if (ClassOf(a) != ClassOf(b)) return std::partial_ordering::unordered;
  if (const auto* text = std::get_if<std::string>(&a)) return text->compare(std::get<std::string>(b)) <=> 0;
  if (const auto* time = std::get_if<Time>(&a)) return *time <=> std::get<Time>(b);
  const auto* whole_a = std::get_if<int64_t>(&a);
  const auto* whole_b = std::get_if<int64_t>(&b);
  if (whole_a != nullptr && whole_b != nullptr) return *whole_a <=> *whole_b;
  if (whole_a != nullptr) return CompareWhole(*whole_a, std::get<double>(b));
  if (whole_b != nullptr) return Reverse(CompareWhole(*whole_b, std::get<double>(a)));
  return std::get<double>(a) <=> std::get<double>(b);
}

bool SortsBefore(const Value& a, const Value& b) {
  if (ClassOf(a) != ClassOf(b)) return ClassOf(a) < ClassOf(b);
  return Compare(a, b) == std::partial_ordering::less;
}

Value ToValue(const pb::MetadataValue& from) {
  switch (from.kind_case()) {
    case pb::MetadataValue::kIntValue:
      return static_cast<int64_t>(from.int_value());
    case pb::MetadataValue::kNumberValue:
      return from.number_value();
    case pb::MetadataValue::kTimeValue:
      return Time{from.time_value().seconds(), from.time_value().nanos()};
    case pb::MetadataValue::kStringValue:
    case pb::MetadataValue::KIND_NOT_SET:
      break;
  }
  return from.string_value();
}

const std::vector<Value>* IndexedDocument::FindMetadata(std::string_view key) const {
  const auto it = std::lower_bound(metadata.begin(), metadata.end(), key,
                                   [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  return it != metadata.end() && it->first == key ? &it->second : nullptr;
}

IndexedDocument ToIndexedDocument(const shardpb::DocumentRecord& record) {
  const pb::Document& from = record.document();
  IndexedDocument to;
  to.id = from.id();
  to.title = from.title();
  to.source = from.source();
  to.content_hash = record.content_hash();
  to.first_chunk_id = record.chunks().first_chunk_id();
  to.chunk_count = record.chunks().count();
  to.text_bytes = record.text_bytes();
  to.metadata.reserve(from.metadata_size());
  for (const auto& [key, values] : from.metadata()) {
    std::vector<Value>& list = to.metadata.emplace_back(key, std::vector<Value>()).second;
    list.reserve(values.values_size());
    for (const pb::MetadataValue& value : values.values()) list.push_back(ToValue(value));
  }
  std::sort(to.metadata.begin(), to.metadata.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return to;
}

void CopyValue(const Value& from, pb::MetadataValue* to) {
  if (const auto* text = std::get_if<std::string>(&from)) {
    to->set_string_value(*text);
  } else if (const auto* whole = std::get_if<int64_t>(&from)) {
    to->set_int_value(*whole);
  } else if (const auto* number = std::get_if<double>(&from)) {
    to->set_number_value(*number);
  } else {
    const Time& time = std::get<Time>(from);
    to->mutable_time_value()->set_seconds(time.seconds);
    to->mutable_time_value()->set_nanos(time.nanos);
  }
}

void CopyMetadata(const IndexedDocument& from, google::protobuf::Map<std::string, pb::MetadataValues>* to) {
  for (const auto& [key, values] : from.metadata) {
    pb::MetadataValues& list = (*to)[key];
    for (const Value& value : values) CopyValue(value, list.add_values());
  }
}

}  // namespace retro
