#include "retriever_service/serve/validate.h"

#include <cmath>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/document_limits.h"
#include "retriever_service/query/limits.h"

namespace retro {
namespace {

constexpr int kExcludedPerQueryMax = 256;
constexpr int kExcludedMax = 1024;

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
  if (query.exclude_document_ids_size() > kExcludedPerQueryMax) {
    return FieldError(field + ".exclude_document_ids", StrCat("has more than ", kExcludedPerQueryMax, " ids"));
  }
  return absl::OkStatus();
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
  const auto ms = wait.seconds() * 1000 + wait.nanos() / 1'000'000;
  if (ms < 0 || ms > kMaxWaitMax.count())
    return FieldError("max_wait", StrCat("must be from 0 to ", kMaxWaitMax.count() / 1000, " s"));
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const pb::SearchRequest& request) {
  if (request.queries_size() < 1 || request.queries_size() > kQueriesMax) {
    return FieldError("queries", StrCat("there are ", request.queries_size(), ", must be 1 to ", kQueriesMax));
  }
  for (int i = 0; i < request.queries_size(); ++i) {
    RETRO_RETURN_IF_ERROR(CheckQuery(StrCat("queries[", i, "]"), request.queries(i)));
  }
  if (request.has_k() && (request.k() < 1 || request.k() > kNeighboursMax)) {
    return FieldError("k", StrCat("is ", request.k(), ", must be 1 to ", kNeighboursMax));
  }
  if (request.has_effort()) RETRO_RETURN_IF_ERROR(CheckEffort(request.effort()));
  if (request.has_max_distance() && !(request.max_distance() > 0))
    return FieldError("max_distance", "must be a number above 0");
  if (request.exclude_document_ids_size() > kExcludedMax) {
    return FieldError("exclude_document_ids", StrCat("has more than ", kExcludedMax, " ids"));
  }
  if (request.has_max_chunks_per_document() && request.max_chunks_per_document() < 1) {
    return FieldError("max_chunks_per_document", "must be 1 or more");
  }
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
  if (request.document_ids_size() > kDeleteIdsMax)
    return FieldError("document_ids", StrCat("has more than ", kDeleteIdsMax, " ids"));
  return absl::OkStatus();
}

absl::Status Validate(const pb::GetDocumentRequest& request) {
  return request.document_id().empty() ? FieldError("document_id", "is empty") : absl::OkStatus();
}

absl::Status Validate(const pb::GetChunksRequest& request) {
  if (request.document_id().empty()) return FieldError("document_id", "is empty");
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

}  // namespace retro
