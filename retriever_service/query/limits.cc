#include "retriever_service/query/limits.h"

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/document_limits.h"

namespace retro {

absl::Status CheckQueryCount(int count) {
  if (count >= 1 && count <= kQueriesMax) return absl::OkStatus();
  return FieldError("queries", StrCat("there are ", count, ", must be 1 to ", kQueriesMax));
}

absl::Status CheckIds(const std::string& field, const google::protobuf::RepeatedPtrField<std::string>& ids,
                      int count_max) {
  if (ids.size() > count_max) return FieldError(field, StrCat("has more than ", count_max, " ids"));
  for (int i = 0; i < ids.size(); ++i) {
    RETRO_RETURN_IF_ERROR(CheckDocumentId(ids.Get(i), StrCat(field, "[", i, "]")));
  }
  return absl::OkStatus();
}

}  // namespace retro
