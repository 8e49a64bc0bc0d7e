// What a collection is made with, and cannot be changed afterwards: the tokenizer that cuts its documents and the
// embedder of its vectors.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/document/protos.h"
#include "common/tokenizer/tokenizer.h"
#include "retriever_service/embed/embedder.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

// INVALID_ARGUMENT for a tokenizer that can't cut documents, as it doesn't give back every text.
absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadChunkingTokenizer(const std::string& path);

// `self_test`: SelfTestVector of the embedder.
pb::CollectionSpec MakeCollectionSpec(const std::string& name, const Tokenizer& tokenizer, uint32_t chunk_size,
                                      const EmbedderInfo& embedder, const std::vector<float>& self_test);

// EMBEDDER_MISMATCH or TOKENIZER_MISMATCH if documents of the one, with their chunks and vectors, don't fit the other.
absl::Status CheckAlike(const pb::CollectionSpec& a, const pb::CollectionSpec& b);

}  // namespace retro
