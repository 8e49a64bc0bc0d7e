// Documents as lines of JSON: what `retro ingest` reads and `retro export` writes.
//
//   {"id": "a", "title": "...", "text": "...", "source": "...", "metadata": {"lang": "en", "year": 2020}, "tag": ["x"]}
//
// Metadata values are texts, whole numbers, numbers (3.0 stays one), true and false (as texts), {"time":
// "2024-05-01T12:00:00Z"}, or lists of these; null is no value. Other fields beside those named here are metadata too.
// Also understood: "external_version", and "vectors" (one list of numbers a chunk) with "embedder_fingerprint"
// (hexadecimal).
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro::cli {

struct ParsedDocument {
  ::retro::retriever::v1::DocumentWrite write;
  bool has_source = false;  // the line said something about it, if only ""
};

// INVALID_ARGUMENT that names the field. An id may be missing, a text may not.
absl::StatusOr<ParsedDocument> ParseDocumentJson(std::string_view line);

// One line without its break; ParseDocumentJson gives the same document again.
std::string DocumentToJson(const ::retro::retriever::v1::Document& document);

// The values of a key for people, as `"en", 2024`.
std::string MetadataToText(const ::retro::retriever::v1::MetadataValues& values);

// "key=text" or "key:=JSON" (12, 1.5, "x", ["a", "b"], {"time": "..."}) into `document`'s metadata.
absl::Status AddMetadata(std::string_view option, ::retro::retriever::v1::Document* document);

}  // namespace retro::cli
