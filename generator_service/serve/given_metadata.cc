#include "generator_service/serve/given_metadata.h"

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/document_limits.h"

namespace retro {

absl::Status CheckGivenMetadata(const std::string& field, const pb::Neighbour& neighbour) {
  if (neighbour.metadata_size() > kMetadataKeysMax)
    return FieldError(field, StrCat("at most ", kMetadataKeysMax, " keys"));
  size_t bytes = 0;
  for (const auto& [key, values] : neighbour.metadata()) {
    // It is named in errors only once it is known to be short.
    if (key.empty() || key.size() > kMetadataKeyBytesMax)
      return FieldError(field, StrCat("a key must have 1 to ", kMetadataKeyBytesMax, " bytes"));
    const std::string place = StrCat(field, "[\"", key, "\"].values");
    if (values.values_size() < 1 || values.values_size() > kMetadataValuesMax)
      return FieldError(place, StrCat("must be 1 to ", kMetadataValuesMax));
    for (const pb::MetadataValue& value : values.values()) RETRO_RETURN_IF_ERROR(CheckMetadataValue(value, place));
    bytes += key.size() + values.ByteSizeLong();
  }
  if (bytes > kMetadataBytesMax) return FieldError(field, StrCat("has ", bytes, " bytes, at most ", kMetadataBytesMax));
  return absl::OkStatus();
}

}  // namespace retro
