// Bounds on requests, checked before any work: INVALID_ARGUMENT that names the field by its path.
#pragma once

#include "absl/status/status.h"
#include "common/document/protos.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

absl::Status Validate(const pb::SearchRequest& request);
absl::Status Validate(const pb::EmbedRequest& request);
absl::Status Validate(const pb::CutChunksRequest& request);
absl::Status Validate(const pb::UpsertDocumentsRequest& request);
absl::Status Validate(const pb::DeleteDocumentsRequest& request);
absl::Status Validate(const pb::GetDocumentRequest& request);
absl::Status Validate(const pb::GetChunksRequest& request);
absl::Status Validate(const pb::ListDocumentsRequest& request);
absl::Status Validate(const pb::CreateCollectionRequest& request);
absl::Status Validate(const pb::DeleteCollectionRequest& request);

}  // namespace retro
