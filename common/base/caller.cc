#include "common/base/caller.h"

#include "common/base/error.h"
#include "common/base/strings.h"

namespace retro {

absl::Status CheckCollectionLength(std::string_view field, std::string_view name) {
  if (name.size() <= kCollectionFieldBytesMax) return absl::OkStatus();
  return FieldError(field, StrCat("must have at most ", kCollectionFieldBytesMax, " bytes"));
}

absl::Status CheckCollection(const Caller* caller, std::string_view collection) {
  if (caller == nullptr || !caller->collections.has_value()) return absl::OkStatus();
  if (caller->collections->contains(std::string(collection))) return absl::OkStatus();
  return Error(absl::StatusCode::kPermissionDenied, Reason::kPermissionDenied,
               StrCat("the API key '", caller->key, "' is not for the collection '", collection, "'"));
}

absl::Status CheckGeneratedTokens(const Caller* caller, int64_t tokens) {
  if (caller == nullptr || tokens <= caller->generated_tokens_max.value_or(tokens)) return absl::OkStatus();
  return Error(absl::StatusCode::kPermissionDenied, Reason::kPermissionDenied,
               StrCat("max_tokens: the API key '", caller->key, "' may generate ", *caller->generated_tokens_max,
                      " tokens at once, ", tokens, " are asked for"));
}

}  // namespace retro
