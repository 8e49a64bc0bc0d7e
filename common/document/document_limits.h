// What a document may be: the bounds that document.proto states, checked wherever documents enter.
#pragma once

#include <cstddef>
#include <string_view>

#include "absl/status/status.h"
#include "common/document/protos.h"
#include "retro/retriever/v1/document.pb.h"

namespace retro {

inline constexpr size_t kDocumentIdBytesMax = 512;
inline constexpr size_t kTitleBytesMax = 4096;
inline constexpr size_t kTextBytesMax = size_t{8} << 20;
inline constexpr size_t kSourceBytesMax = 4096;
inline constexpr int kMetadataKeysMax = 64;
inline constexpr size_t kMetadataKeyBytesMax = 128;
inline constexpr int kMetadataValuesMax = 256;
inline constexpr size_t kMetadataStringBytesMax = 4096;
inline constexpr size_t kMetadataBytesMax = size_t{64} << 10;  // of all of it: every neighbour carries a copy

// 1 to 512 bytes of UTF-8 without control characters. `field` is the id's path in the request.
absl::Status CheckDocumentId(std::string_view id, std::string_view field);

// A value of a known kind within its bounds: used by documents and by filters.
absl::Status CheckMetadataValue(const pb::MetadataValue& value, std::string_view field);

// The whole document; INVALID_ARGUMENT names the first wrong field as `field`.name. An empty text is wrong.
absl::Status CheckDocument(const pb::Document& document, std::string_view field);

}  // namespace retro
