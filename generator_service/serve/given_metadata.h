// The metadata of neighbours that a caller gives: they are a document's, within a document's bounds.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "retro/retriever/v1/document.pb.h"

namespace retro {

// INVALID_ARGUMENT naming the key; `field` is the metadata's path in the request.
absl::Status CheckGivenMetadata(const std::string& field, const retriever::v1::Neighbour& neighbour);

}  // namespace retro
