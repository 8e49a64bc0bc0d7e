#include "retriever_service/serve/validate.h"

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/document_limits.h"
#include "retriever_service/index/filter.h"
#include "retriever_service/query/limits.h"

namespace retro {
namespace {

constexpr size_t kCollectionNameBytesMax = 128;

absl::Status CheckText(const std::string& field, const std::string& text, size_t bytes_max) {
  if (text.empty()) return FieldError(field, "is empty");
  if (text.size() > bytes_max)
    return FieldError(field, StrCat("has ", text.size(), " bytes, at most ", bytes_max, " are allowed"));
  return absl::OkStatus();
}

absl::Status CheckQuery(const std::string& field, const pb::Query& query) {
  switch (query.query_case()) {
    case pb::Query::kText:
      RETRO_RETURN_IF_ERROR(CheckText(field + ".text", query.text(), kQueryTextBytesMax));
      break;
    case pb::Query::kVector:
      if (query.vector().values().empty()) return FieldError(field + ".vector", "is empty");
      for (const float value : query.vector().values()) {
        if (!std::isfinite(value)) return FieldError(field + ".vector", "has a number that is not finite");
      }
      if (query.embedder_fingerprint().empty()) {
        return FieldError(field + ".embedder_fingerprint", "is needed with a vector; GetInfo tells the collection's");
      }
      break;
    case pb::Query::QUERY_NOT_SET:
      return FieldError(field, "needs a text or a vector");
  }
  return CheckIds(field + ".exclude_document_ids", query.exclude_document_ids(), kExcludedPerQueryMax);
}

absl::Status CheckEffort(const pb::Effort& effort) {
  switch (effort.kind_case()) {
    case pb::Effort::kLevel:
      if (!(effort.level() >= 0 && effort.level() <= 1)) return FieldError("effort.level", "must be from 0 to 1");
      return absl::OkStatus();
    case pb::Effort::kExact:
      if (!effort.exact()) return FieldError("effort.exact", "can only be true; set a level instead");
      return absl::OkStatus();
    case pb::Effort::KIND_NOT_SET:
      return FieldError("effort", "needs a level or exact");
  }
  return absl::OkStatus();
}

absl::Status CheckMaxWait(const google::protobuf::Duration& wait) {
  constexpr auto kSecondsMax = std::chrono::duration_cast<std::chrono::seconds>(kMaxWaitMax).count();
  constexpr int32_t kNanosMax = 999'999'999;
  const bool in_range = wait.seconds() >= 0 && wait.nanos() >= 0 && wait.nanos() <= kNanosMax &&
                        (wait.seconds() < kSecondsMax || (wait.seconds() == kSecondsMax && wait.nanos() == 0));
  return in_range ? absl::OkStatus() : FieldError("max_wait", StrCat("must be from 0 to ", kSecondsMax, " s"));
}

// Of a collection that can be made and dropped. Names are labels of metrics, and stand in files of keys.
absl::Status CheckCollectionName(const std::string& field, const std::string& name) {
  if (name.empty()) return FieldError(field, "is empty: the default collection is always there");
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
  if (plain && name.size() <= kCollectionNameBytesMax) return absl::OkStatus();
  return FieldError(field, StrCat("must be 1 to ", kCollectionNameBytesMax, " of a-z, 0-9, '-' and '_'"));
}

}  // namespace

absl::Status Validate(const pb::SearchRequest& request) {
  RETRO_RETURN_IF_ERROR(CheckQueryCount(request.queries_size()));
  for (int i = 0; i < request.queries_size(); ++i) {
    RETRO_RETURN_IF_ERROR(CheckQuery(StrCat("queries[", i, "]"), request.queries(i)));
  }
  if (request.has_k() && (request.k() < 1 || request.k() > kNeighboursMax)) {
    return FieldError("k", StrCat("is ", request.k(), ", must be 1 to ", kNeighboursMax));
  }
  if (request.has_effort()) RETRO_RETURN_IF_ERROR(CheckEffort(request.effort()));
  if (request.has_max_distance() && !(request.max_distance() > 0))
    return FieldError("max_distance", "must be a number above 0");
  RETRO_RETURN_IF_ERROR(CheckIds("exclude_document_ids", request.exclude_document_ids(), kExcludedMax));
  if (request.has_max_chunks_per_document() && request.max_chunks_per_document() < 1) {
    return FieldError("max_chunks_per_document", "must be 1 or more");
  }
  if (request.has_filter()) RETRO_RETURN_IF_ERROR(CompiledFilter::Compile(request.filter(), "filter").status());
  return request.has_max_wait() ? CheckMaxWait(request.max_wait()) : absl::OkStatus();
}

absl::Status Validate(const pb::EmbedRequest& request) {
  if (request.texts_size() < 1 || request.texts_size() > kEmbedTextsMax) {
    return FieldError("texts", StrCat("there are ", request.texts_size(), ", must be 1 to ", kEmbedTextsMax));
  }
  for (int i = 0; i < request.texts_size(); ++i) {
    RETRO_RETURN_IF_ERROR(CheckText(StrCat("texts[", i, "]"), request.texts(i), kQueryTextBytesMax));
  }
  return absl::OkStatus();
}

absl::Status Validate(const pb::CutChunksRequest& request) { return CheckText("text", request.text(), kTextBytesMax); }

absl::Status Validate(const pb::UpsertDocumentsRequest& request) {
  if (request.writes_size() < 1 || request.writes_size() > kWritesMax) {
    return FieldError("writes", StrCat("there are ", request.writes_size(), ", must be 1 to ", kWritesMax));
  }
  return absl::OkStatus();  // each document is checked for itself and fails for itself
}

absl::Status Validate(const pb::DeleteDocumentsRequest& request) {
  if (request.document_ids().empty() == !request.has_filter())
    return FieldError("document_ids", "either ids or a filter must be given, not both");
  return CheckIds("document_ids", request.document_ids(), kDeleteIdsMax);
}

absl::Status Validate(const pb::GetDocumentRequest& request) {
  return CheckDocumentId(request.document_id(), "document_id");
}

absl::Status Validate(const pb::GetChunksRequest& request) {
  RETRO_RETURN_IF_ERROR(CheckDocumentId(request.document_id(), "document_id"));
  if (request.has_max_chunks() && (request.max_chunks() < 1 || request.max_chunks() > kChunksMax)) {
    return FieldError("max_chunks", StrCat("must be 1 to ", kChunksMax));
  }
  return absl::OkStatus();
}

absl::Status Validate(const pb::ListDocumentsRequest& request) {
  if (request.has_page_size() && (request.page_size() < 1 || request.page_size() > kPageSizeMax)) {
    return FieldError("page_size", StrCat("must be 1 to ", kPageSizeMax));
  }
  return absl::OkStatus();
}

absl::Status Validate(const pb::CreateCollectionRequest& request) {
  RETRO_RETURN_IF_ERROR(CheckCollectionName("spec.name", request.spec().name()));
  const pb::Metric metric = request.spec().metric();
  if (metric == pb::METRIC_UNSPECIFIED || metric == pb::METRIC_L2) return absl::OkStatus();
  return FieldError("spec.metric", "can only be METRIC_L2");
}

absl::Status Validate(const pb::DeleteCollectionRequest& request) {
  return CheckCollectionName("name", request.name());
}

}  // namespace retro
