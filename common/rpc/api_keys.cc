#include "common/rpc/api_keys.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

using nlohmann::json;

constexpr size_t kHashBytes = 32;
constexpr int64_t kCountMax = int64_t{1} << 32;

absl::Status Wrong(const std::string& where, std::string_view what) {
  return absl::InvalidArgumentError(StrCat(where, ": ", what));
}

absl::StatusOr<std::string> ParseHash(const std::string& where, const json& value) {
  const std::string hex = value.is_string() ? value.get<std::string>() : "";
  const bool right = hex.size() == 2 * kHashBytes &&
                     std::all_of(hex.begin(), hex.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
  if (!right) return Wrong(where, "sha256 must be 64 hexadecimal digits");
  return absl::HexStringToBytes(hex);
}

absl::StatusOr<Role> ParseRole(const std::string& where, const json& value) {
  if (value == "read") return Role::kRead;
  if (value == "write") return Role::kWrite;
  if (value == "admin") return Role::kAdmin;
  return Wrong(where, "role must be read, write or admin");
}

absl::StatusOr<std::set<std::string>> ParseCollections(const std::string& where, const json& value) {
  std::set<std::string> collections;
  const bool strings =
      value.is_array() && std::all_of(value.begin(), value.end(), [](const json& one) { return one.is_string(); });
  if (!strings) return Wrong(where, "collections must be a list of names");
  for (const json& one : value) collections.insert(one.get<std::string>());
  return collections;
}

absl::StatusOr<int64_t> ParseCount(const std::string& where, const std::string& member, const json& value) {
  if (!value.is_number_integer() || value < 1 || value > kCountMax) {
    return Wrong(where, StrCat(member, " must be a whole number above 0"));
  }
  return value.get<int64_t>();
}

absl::Status ParseMember(const std::string& where, const std::string& member, const json& value, ApiKey& key) {
  if (member == "name") {
    if (!value.is_string() || value.get<std::string>().empty()) return Wrong(where, "name must be a text");
    key.name = value.get<std::string>();
  } else if (member == "sha256") {
    RETRO_ASSIGN_OR_RETURN(key.sha256, ParseHash(where, value));
  } else if (member == "role") {
    RETRO_ASSIGN_OR_RETURN(key.role, ParseRole(where, value));
  } else if (member == "collections") {
    RETRO_ASSIGN_OR_RETURN(key.collections, ParseCollections(where, value));
  } else if (member == "requests_per_second_max") {
    if (!value.is_number() || !(value.get<double>() > 0)) return Wrong(where, StrCat(member, " must be above 0"));
    key.requests_per_second_max = value.get<double>();
  } else if (member == "streams_max") {
    RETRO_ASSIGN_OR_RETURN(key.streams_max, ParseCount(where, member, value));
  } else if (member == "tokens_max") {
    RETRO_ASSIGN_OR_RETURN(key.tokens_max, ParseCount(where, member, value));
  } else {
    return Wrong(where, StrCat("unknown member '", member, "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ApiKey> ParseKey(const std::string& where, const json& object) {
  if (!object.is_object()) return Wrong(where, "must be an object");
  ApiKey key;
  for (const auto& [member, value] : object.items()) RETRO_RETURN_IF_ERROR(ParseMember(where, member, value, key));
  for (const char* member : {"name", "sha256", "role"}) {
    if (!object.contains(member)) return Wrong(where, StrCat(member, " is missing"));
  }
  if (key.role == Role::kAdmin && key.collections.has_value()) {
    return Wrong(where, "an admin key is for all collections: leave collections out");
  }
  return key;
}

}  // namespace

absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(std::string_view text) {
  const json file = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (file.is_discarded()) return absl::InvalidArgumentError("is no JSON");
  if (!file.is_object() || file.size() != 1 || !file.contains("keys") || !file["keys"].is_array()) {
    return absl::InvalidArgumentError("must be {\"keys\": [...]} and nothing else");
  }
  std::vector<ApiKey> keys;
  keys.reserve(file["keys"].size());
  for (const json& object : file["keys"]) {
    const std::string where = StrCat("keys[", keys.size(), "]");
    RETRO_ASSIGN_OR_RETURN(ApiKey key, ParseKey(where, object));
    for (const ApiKey& other : keys) {
      if (other.name == key.name) return Wrong(where, "the name occurs twice");
      if (other.sha256 == key.sha256) return Wrong(where, "the hash occurs twice");
    }
    keys.push_back(std::move(key));
  }
  return keys;
}

const ApiKey* FindApiKey(const std::vector<ApiKey>& keys, std::string_view presented) {
  const std::string hash = Sha256Bytes(presented);
  const ApiKey* found = nullptr;
  for (const ApiKey& key : keys) {
    if (CRYPTO_memcmp(key.sha256.data(), hash.data(), kHashBytes) == 0) found = &key;
  }
  return found;
}

}  // namespace retro
