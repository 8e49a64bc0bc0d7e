#include "common/document/document_limits.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/tokenizer/utf8.h"

namespace retro {
namespace {

// google.protobuf.Timestamp: years 1 to 9999.
constexpr int64_t kTimestampSecondsMin = -62135596800;
constexpr int64_t kTimestampSecondsMax = 253402300799;
constexpr int32_t kNanosMax = 999'999'999;

absl::Status CheckUtf8(std::string_view text, std::string_view field) {
  for (size_t i = SkipAscii(text, 0); i < text.size();) {
    const Utf8Character character = DecodeUtf8(text, i);
    if (!character.valid) return FieldError(field, StrCat("not UTF-8 at byte ", i));
    i = SkipAscii(text, i + character.length);
  }
  return absl::OkStatus();
}

absl::Status CheckText(std::string_view text, std::string_view field, size_t bytes_max) {
  if (text.size() > bytes_max) {
    return FieldError(field, StrCat(text.size(), " bytes, at most ", bytes_max, " are allowed"));
  }
  return CheckUtf8(text, field);
}

// As much of a key as an error needs, cut between characters: a message is UTF-8 like everything on the wire.
std::string_view NamedKey(std::string_view key) {
  size_t bytes = std::min(key.size(), kMetadataKeyBytesMax);
  while (bytes > 0 && bytes < key.size() && IsUtf8Continuation(key[bytes])) --bytes;
  return key.substr(0, bytes);
}

absl::Status CheckMetadata(const pb::Document& document, const std::string& field) {
  size_t bytes = 0;
  for (const auto& [key, values] : document.metadata()) bytes += key.size() + values.ByteSizeLong();
  if (bytes > kMetadataBytesMax) {
    return FieldError(field, StrCat("has ", bytes, " bytes, at most ", kMetadataBytesMax, " are allowed"));
  }
  if (document.metadata_size() > kMetadataKeysMax) {
    return FieldError(field, StrCat(document.metadata_size(), " keys, at most ", kMetadataKeysMax, " are allowed"));
  }
  for (const auto& [key, values] : document.metadata()) {
    const std::string place = StrCat(field, "[\"", NamedKey(key), "\"]");
    if (key.empty()) return FieldError(place, "a key must not be empty");
    RETRO_RETURN_IF_ERROR(CheckText(key, place, kMetadataKeyBytesMax));
    if (values.values_size() == 0 || values.values_size() > kMetadataValuesMax) {
      return FieldError(place, StrCat(values.values_size(), " values, give 1 to ", kMetadataValuesMax));
    }
    for (int i = 0; i < values.values_size(); ++i) {
      RETRO_RETURN_IF_ERROR(CheckMetadataValue(values.values(i), StrCat(place, ".values[", i, "]")));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckDocumentId(std::string_view id, std::string_view field) {
  if (id.empty()) return FieldError(field, "a document needs an id");
  RETRO_RETURN_IF_ERROR(CheckText(id, field, kDocumentIdBytesMax));
  for (size_t i = 0; i < id.size();) {
    const Utf8Character character = DecodeUtf8(id, i);
    if (character.code < 0x20 || (character.code >= 0x7F && character.code < 0xA0)) {
      return FieldError(field, StrCat("control character at byte ", i));
    }
    i += character.length;
  }
  return absl::OkStatus();
}

absl::Status CheckMetadataValue(const pb::MetadataValue& value, std::string_view field) {
  switch (value.kind_case()) {
    case pb::MetadataValue::kStringValue:
      return CheckText(value.string_value(), field, kMetadataStringBytesMax);
    case pb::MetadataValue::kIntValue:
      return absl::OkStatus();
    case pb::MetadataValue::kNumberValue:
      return std::isfinite(value.number_value()) ? absl::OkStatus() : FieldError(field, "not a finite number");
    case pb::MetadataValue::kTimeValue: {
      const auto& time = value.time_value();
      const bool in_range = time.seconds() >= kTimestampSecondsMin && time.seconds() <= kTimestampSecondsMax &&
                            time.nanos() >= 0 && time.nanos() <= kNanosMax;
      return in_range ? absl::OkStatus() : FieldError(field, "not a time between the years 1 and 9999");
    }
    case pb::MetadataValue::KIND_NOT_SET:
      break;
  }
  return FieldError(field, "set string_value, int_value, number_value or time_value");
}

absl::Status CheckDocument(const pb::Document& document, std::string_view field) {
  RETRO_RETURN_IF_ERROR(CheckDocumentId(document.id(), StrCat(field, ".id")));
  RETRO_RETURN_IF_ERROR(CheckText(document.title(), StrCat(field, ".title"), kTitleBytesMax));
  if (document.text().empty()) return FieldError(StrCat(field, ".text"), "the text is empty");
  RETRO_RETURN_IF_ERROR(CheckText(document.text(), StrCat(field, ".text"), kTextBytesMax));
  RETRO_RETURN_IF_ERROR(CheckText(document.source(), StrCat(field, ".source"), kSourceBytesMax));
  return CheckMetadata(document, StrCat(field, ".metadata"));
}

}  // namespace retro
