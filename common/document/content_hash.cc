#include "common/document/content_hash.h"

#include <bit>
#include <cstdint>
#include <map>

#include "common/base/hash.h"

namespace retro {
namespace {

std::string BigEndian64(uint64_t value) {
  std::string bytes(8, '\0');
  for (int i = 7; i >= 0; --i, value >>= 8) bytes[i] = static_cast<char>(value & 0xFF);
  return bytes;
}

void HashValue(const pb::MetadataValue& value, Sha256& hash) {
  switch (value.kind_case()) {
    case pb::MetadataValue::kStringValue:
      hash.UpdateField("s");
      return hash.UpdateField(value.string_value());
    case pb::MetadataValue::kIntValue:
      hash.UpdateField("i");
      return hash.UpdateField(BigEndian64(static_cast<uint64_t>(value.int_value())));
    case pb::MetadataValue::kNumberValue:
      hash.UpdateField("n");
      return hash.UpdateField(BigEndian64(std::bit_cast<uint64_t>(value.number_value())));
    case pb::MetadataValue::kTimeValue:
      hash.UpdateField("t");
      hash.UpdateField(BigEndian64(static_cast<uint64_t>(value.time_value().seconds())));
      return hash.UpdateField(BigEndian64(static_cast<uint64_t>(value.time_value().nanos())));
    case pb::MetadataValue::KIND_NOT_SET:
      return hash.UpdateField("");
  }
}

}  // namespace

std::string ContentHash(const pb::Document& document) {
  Sha256 hash;
  hash.UpdateField(document.title());
  hash.UpdateField(document.text());
  hash.UpdateField(document.source());
  std::map<std::string_view, const pb::MetadataValues*> sorted;
  for (const auto& [key, values] : document.metadata()) sorted.emplace(key, &values);
  hash.UpdateField(BigEndian64(sorted.size()));
  for (const auto& [key, values] : sorted) {
    hash.UpdateField(key);
    hash.UpdateField(BigEndian64(static_cast<uint64_t>(values->values_size())));
    for (const pb::MetadataValue& value : values->values()) HashValue(value, hash);
  }
  return hash.Finish();
}

std::string TextHash(std::string_view text) { return Sha256Bytes(text); }

}  // namespace retro
