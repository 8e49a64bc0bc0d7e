#include "retriever_service/ingest/collection_spec.h"

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"

namespace retro {

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadChunkingTokenizer(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadTokenizer(path));
  if (!tokenizer->lossless()) {
    return FieldError("--tokenizer",
                      StrCat(path,
                             " does not give back every text byte for byte, so it can't cut documents; use "
                             "common/tokenizer/retro-16k.model or one trained like it"));
  }
  return tokenizer;
}

pb::CollectionSpec MakeCollectionSpec(const std::string& name, const Tokenizer& tokenizer, uint32_t chunk_size,
                                      const EmbedderInfo& embedder, const std::vector<float>& self_test) {
  pb::CollectionSpec spec;
  spec.set_name(name);
  spec.set_tokenizer_fingerprint(tokenizer.fingerprint());
  spec.set_chunk_size(chunk_size);
  spec.set_embedder_fingerprint(embedder.fingerprint);
  spec.set_dimension(static_cast<uint32_t>(embedder.dimension));
  spec.set_metric(pb::METRIC_L2);
  spec.set_self_test_vector(ToHalf(self_test));
  return spec;
}

absl::Status CheckAlike(const pb::CollectionSpec& a, const pb::CollectionSpec& b) {
  if (a.embedder_fingerprint() != b.embedder_fingerprint() || a.dimension() != b.dimension()) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kEmbedderMismatch,
                 StrCat("collection \"", a.name(), "\" has vectors of another embedder"));
  }
  if (a.tokenizer_fingerprint() != b.tokenizer_fingerprint() || a.chunk_size() != b.chunk_size()) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kTokenizerMismatch,
                 StrCat("collection \"", a.name(), "\" was cut into other chunks"));
  }
  return absl::OkStatus();
}

}  // namespace retro
