// What makes two versions of a document the same. These hashes are on disk and in replies: they never change.
#pragma once

#include <string>
#include <string_view>

#include "common/document/protos.h"
#include "retro/retriever/v1/document.pb.h"

namespace retro {

// SHA-256 (32 raw bytes) over title, text, source and metadata, each field preceded by its length, metadata in the
// order of its keys' bytes, values in the document's order with their kind. The id and the external version are not
// part of it.
std::string ContentHash(const pb::Document& document);

// SHA-256 over the text alone; tells whether chunks and vectors can be kept.
std::string TextHash(std::string_view text);

}  // namespace retro
