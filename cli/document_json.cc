#include "cli/document_json.h"

#include <cmath>
#include <limits>
#include <utility>

#include "cli/protocol.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "google/protobuf/util/time_util.h"
#include "nlohmann/json.hpp"

namespace retro::cli {
namespace {

using Json = nlohmann::json;
using google::protobuf::util::TimeUtil;

absl::Status FieldProblem(std::string_view field, std::string_view problem) {
  return absl::InvalidArgumentError(StrCat("field \"", field, "\" ", problem));
}

absl::Status TakeText(std::string_view field, const Json& value, std::string* text) {
  if (value.is_null()) return absl::OkStatus();
  if (!value.is_string()) return FieldProblem(field, "must be a text");
  *text = value.get_ref<const std::string&>();
  return absl::OkStatus();
}

// Integers that fit int64 are whole; greater ones lose precision as a number rather than the document its place.
bool IsWhole(const Json& value) {
  return value.is_number_integer() &&
         !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()});
}

absl::Status AddValue(std::string_view field, const Json& value, pb::MetadataValues* values) {
  if (value.is_string()) {
    values->add_values()->set_string_value(value.get_ref<const std::string&>());
  } else if (value.is_boolean()) {
    values->add_values()->set_string_value(value.get<bool>() ? "true" : "false");
  } else if (IsWhole(value)) {
    values->add_values()->set_int_value(value.get<int64_t>());
  } else if (value.is_number()) {
    values->add_values()->set_number_value(value.get<double>());
  } else if (value.is_object() && value.size() == 1 && value.contains("time") && value["time"].is_string()) {
    if (!TimeUtil::FromString(value["time"].get<std::string>(), values->add_values()->mutable_time_value())) {
      return FieldProblem(field, "has no time as 2024-05-01T12:00:00Z");
    }
  } else {
    return FieldProblem(field, "is no metadata: use a text, a number, {\"time\": ...} or a list of these");
  }
  return absl::OkStatus();
}

absl::Status AddValues(const std::string& field, const Json& value, pb::Document* document) {
  if (value.is_null()) return absl::OkStatus();
  pb::MetadataValues values;
  if (value.is_array()) {
    for (const Json& one : value) RETRO_RETURN_IF_ERROR(AddValue(field, one, &values));
  } else {
    RETRO_RETURN_IF_ERROR(AddValue(field, value, &values));
  }
  if (values.values_size() > 0) (*document->mutable_metadata())[field] = std::move(values);
  return absl::OkStatus();
}

absl::Status TakeMetadata(const Json& value, pb::Document* document) {
  if (value.is_null()) return absl::OkStatus();
  if (!value.is_object()) return FieldProblem("metadata", "must be an object");
  for (const auto& [key, values] : value.items()) RETRO_RETURN_IF_ERROR(AddValues(key, values, document));
  return absl::OkStatus();
}

absl::Status TakeVectors(const Json& value, pb::DocumentWrite* write) {
  if (!value.is_array()) return FieldProblem("vectors", "must be a list of lists of numbers");
  for (const Json& row : value) {
    if (!row.is_array()) return FieldProblem("vectors", "must be a list of lists of numbers");
    pb::Vector& vector = *write->add_chunk_vectors();
    vector.mutable_values()->Reserve(static_cast<int>(row.size()));
    for (const Json& number : row) {
      if (!number.is_number()) return FieldProblem("vectors", "must be a list of lists of numbers");
      vector.add_values(number.get<float>());
    }
  }
  return absl::OkStatus();
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

absl::Status TakeFingerprint(const Json& value, std::string* bytes) {
  std::string hex;
  RETRO_RETURN_IF_ERROR(TakeText("embedder_fingerprint", value, &hex));
  bytes->clear();
  for (size_t i = 0; i < hex.size(); i += 2) {
    const int high = HexDigit(hex[i]);
    const int low = i + 1 < hex.size() ? HexDigit(hex[i + 1]) : -1;
    if (high < 0 || low < 0) return FieldProblem("embedder_fingerprint", "must be hexadecimal");
    bytes->push_back(static_cast<char>(high * 16 + low));
  }
  return absl::OkStatus();
}

absl::Status TakeField(const std::string& field, const Json& value, ParsedDocument* parsed) {
  pb::Document& document = *parsed->write.mutable_document();
  if (field == "id") return TakeText(field, value, document.mutable_id());
  if (field == "title") return TakeText(field, value, document.mutable_title());
  if (field == "text") return TakeText(field, value, document.mutable_text());
  if (field == "source") {
    parsed->has_source = true;
    return TakeText(field, value, document.mutable_source());
  }
  if (field == "metadata") return TakeMetadata(value, &document);
  if (field == "vectors") return TakeVectors(value, &parsed->write);
  if (field == "embedder_fingerprint") return TakeFingerprint(value, parsed->write.mutable_embedder_fingerprint());
  if (field == "external_version") {
    if (!value.is_number_unsigned()) return FieldProblem(field, "must be a whole number, 0 or more");
    document.set_external_version(value.get<uint64_t>());
    return absl::OkStatus();
  }
  return AddValues(field, value, &document);
}

Json ValueToJson(const pb::MetadataValue& value) {
  switch (value.kind_case()) {
    case pb::MetadataValue::kStringValue:
      return value.string_value();
    case pb::MetadataValue::kIntValue:
      return value.int_value();
    case pb::MetadataValue::kNumberValue:
      return value.number_value();
    case pb::MetadataValue::kTimeValue:
      return Json{{"time", TimeUtil::ToString(value.time_value())}};
    case pb::MetadataValue::KIND_NOT_SET:
      break;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<ParsedDocument> ParseDocumentJson(std::string_view line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("the line is no JSON");
  if (!json.is_object()) return absl::InvalidArgumentError("the line is no JSON object");
  ParsedDocument parsed;
  for (const auto& [field, value] : json.items()) RETRO_RETURN_IF_ERROR(TakeField(field, value, &parsed));
  if (!json.contains("text")) return FieldProblem("text", "is missing");
  if (parsed.write.document().text().empty()) return FieldProblem("text", "is empty");
  return parsed;
}

std::string DocumentToJson(const pb::Document& document) {
  nlohmann::ordered_json json = {
      {"id", document.id()}, {"title", document.title()}, {"source", document.source()}, {"text", document.text()}};
  if (document.has_external_version()) json["external_version"] = document.external_version();
  Json metadata = Json::object();
  for (const auto& [key, values] : document.metadata()) {
    Json list = Json::array();
    for (const pb::MetadataValue& value : values.values()) list.push_back(ValueToJson(value));
    metadata[key] = list.size() == 1 ? list[0] : list;
  }
  if (!metadata.empty()) json["metadata"] = metadata;
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string MetadataToText(const pb::MetadataValues& values) {
  std::string text;
  for (const pb::MetadataValue& value : values.values()) {
    text += (text.empty() ? "" : ", ") + ValueToJson(value).dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  return text;
}

absl::Status AddMetadata(std::string_view option, pb::Document* document) {
  const size_t equals = option.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(StrCat("--metadata '", option, "': write key=text, or key:=JSON for numbers"));
  }
  const bool typed = option[equals - 1] == ':';
  const std::string key(option.substr(0, equals - (typed ? 1 : 0)));
  const std::string_view value = option.substr(equals + 1);
  if (!typed) return AddValues(key, Json(std::string(value)), document);
  const Json json = Json::parse(value, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError(StrCat("--metadata ", key, ":=", value, " is no JSON"));
  return AddValues(key, json, document);
}

}  // namespace retro::cli
