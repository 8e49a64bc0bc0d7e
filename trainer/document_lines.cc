#include "trainer/document_lines.h"

#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

// A member that is a string if it is there.
bool ReadMember(const nlohmann::json& json, const char* key, std::string& value) {
  value.clear();
  const auto found = json.find(key);
  if (found == json.end()) return true;
  if (!found->is_string()) return false;
  value = found->get<std::string>();
  return true;
}

}  // namespace

absl::StatusOr<DocumentLines> DocumentLines::Open(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, OpenByteSource(path));
  return DocumentLines(path, LineReader(std::move(source)));
}

absl::StatusOr<bool> DocumentLines::Next(TrainingDocument& document) {
  std::string line;
  do {
    const absl::StatusOr<bool> more = reader_.Next(&line);
    if (!more.ok()) {
      return absl::Status(more.status().code(),
                          StrCat(path_, ":", reader_.line_number(), ": ", MessageOf(more.status())));
    }
    if (!*more) return false;
  } while (line.empty());
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("text") || !ReadMember(json, "text", document.text) ||
      !ReadMember(json, "id", document.id) || !ReadMember(json, "title", document.title) ||
      !ReadMember(json, "source", document.source) || !ReadMember(json, "family", document.family)) {
    return absl::InvalidArgumentError(StrCat(path_, ":", reader_.line_number(),
                                             ": is no document: a JSON object with \"text\" and if need be \"id\", "
                                             "\"title\", \"source\" and \"family\", all strings"));
  }
  return true;
}

}  // namespace retro
