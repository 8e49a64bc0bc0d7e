// What an index knows of a document beside its vectors: enough for filters, for "at most n chunks a document", and for
// the facts that accompany a hit, without reading the store. Immutable: a changed document is another one.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "common/document/protos.h"
#include "google/protobuf/map.h"
#include "retro/retriever/v1/document.pb.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

struct Time {
  int64_t seconds;                                // since 1970, UTC
  int32_t nanos;                                  // 0 ... 999,999,999
  auto operator<=>(const Time&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 finds one in it
};

// A metadata value. Whole numbers and other numbers are one class and compare by value, exactly.
using Value = std::variant<std::string, int64_t, double, Time>;

enum class ValueClass { kString, kNumber, kTime };
ValueClass ClassOf(const Value& value);
// Values of different classes are unordered. Strings compare by their bytes.
std::partial_ordering Compare(const Value& a, const Value& b);
// An order over values of all classes, for searching a sorted list.
bool SortsBefore(const Value& a, const Value& b);
// `from` has a kind.
Value ToValue(const pb::MetadataValue& from);
void CopyValue(const Value& from, pb::MetadataValue* to);

struct IndexedDocument {
  std::string id;
  std::string title;
  std::string source;
  std::string content_hash;  // 32 bytes
  uint64_t first_chunk_id = 0;
  uint32_t chunk_count = 0;
  uint64_t text_bytes = 0;
  std::vector<std::pair<std::string, std::vector<Value>>> metadata;  // by key

  // The values of a key; null if it has none.
  const std::vector<Value>* FindMetadata(std::string_view key) const;
  bool operator==(const IndexedDocument&) const = default;
};

// Of memory that it takes, with what its strings and vectors hold.
size_t MemoryBytes(const IndexedDocument& document);
IndexedDocument ToIndexedDocument(const shardpb::DocumentRecord& record);
void CopyMetadata(const IndexedDocument& from, google::protobuf::Map<std::string, pb::MetadataValues>* to);

}  // namespace retro
