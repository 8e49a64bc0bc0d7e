#include "generator_service/checkpoints/foreign_config.h"

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {

using Json = nlohmann::ordered_json;

namespace {

constexpr int64_t kSizeMax = 1 << 24;  // keeps the products of two within bounds

bool IsSize(const Json& value) { return value.is_number_integer() && value >= -kSizeMax && value <= kSizeMax; }

}  // namespace

absl::StatusOr<Json> ReadConfigFile(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("config")) json = Json(json["config"]);
  if (!json.is_object()) return absl::InvalidArgumentError(StrCat(path, " is not JSON with a config"));
  return json;
}

const Json* ForeignConfig::Find(const std::string& key) {
  used_.insert(key);
  const auto found = fields_.find(key);
  return found == fields_.end() || found->is_null() ? nullptr : &*found;
}

bool ForeignConfig::Has(const std::string& key) const {
  const auto found = fields_.find(key);
  return found != fields_.end() && !found->is_null();
}

void ForeignConfig::Fail(std::string_view why) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(StrCat(what_, ": ", why));
}

int64_t ForeignConfig::Integer(const std::string& key) {
  if (Find(key) == nullptr) Fail(StrCat("'", key, "' is missing"));
  return Integer(key, 1);
}

int64_t ForeignConfig::Integer(const std::string& key, int64_t otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (IsSize(*value)) return value->get<int64_t>();
  Fail(StrCat("'", key, "' must be an integer of at most ", kSizeMax));
  return otherwise;
}

double ForeignConfig::Number(const std::string& key, double otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->is_number()) return value->get<double>();
  Fail(StrCat("'", key, "' must be a number"));
  return otherwise;
}

bool ForeignConfig::Flag(const std::string& key, bool otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  Fail(StrCat("'", key, "' must be true or false"));
  return otherwise;
}

std::string ForeignConfig::Text(const std::string& key, const std::string& otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->is_string()) return value->get<std::string>();
  Fail(StrCat("'", key, "' must be a string"));
  return otherwise;
}

std::vector<int64_t> ForeignConfig::Integers(const std::string& key, const std::vector<int64_t>& otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  std::vector<int64_t> integers;
  bool sound = value->is_array();
  for (const Json& item : *value) {
    sound = sound && IsSize(item);
    if (sound) integers.push_back(item.get<int64_t>());
  }
  if (!sound) Fail(StrCat("'", key, "' must be a list of integers"));
  return integers;
}

void ForeignConfig::Ignore(std::initializer_list<const char*> keys) {
  for (const char* key : keys) used_.insert(key);
}

void ForeignConfig::Refuse(std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const Json* value = Find(key);
    if (value == nullptr || *value == Json(false) || *value == Json(0)) continue;
    Fail(StrCat("'", key, "' is ", value->dump(), ", a feature that is not supported here"));
  }
}

std::vector<std::string> ForeignConfig::UnusedKeys() const {
  std::vector<std::string> unused;
  for (const auto& [key, value] : fields_.items()) {
    if (!used_.contains(key) && !key.starts_with('_')) unused.push_back(key);
  }
  return unused;
}

}  // namespace retro
