// The file of API keys: who may do what, and how much of it. It holds hashes, so that whoever reads it has no key.
//
//   {"keys": [{"name": "search-page", "sha256": "<64 hexadecimal digits>", "role": "read",
//              "collections": ["", "news"], "requests_per_second_max": 50, "streams_max": 8, "tokens_max": 512}]}
//
// A key is at least 32 characters from a random source (docs/security.md has the command), so that a plain SHA-256
// cannot be searched. Roles contain each other: admin, write, read. What is left out is not bounded.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace retro {

enum class Role { kRead, kWrite, kAdmin };  // in the order of what they may do

struct ApiKey {
  std::string name;    // for logs
  std::string sha256;  // 32 bytes
  Role role = Role::kRead;
  std::optional<std::set<std::string>> collections;
  std::optional<double> requests_per_second_max;
  std::optional<int64_t> streams_max;  // calls at once
  std::optional<int64_t> tokens_max;   // of one generation
};

// INVALID_ARGUMENT that names the key and the member: unknown ones, missing ones, values that cannot be, a name or a
// hash that occurs twice.
absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(std::string_view json);

// The entry whose key this is, or null. Takes the same time wherever it stands and however much of a hash agrees.
const ApiKey* FindApiKey(const std::vector<ApiKey>& keys, std::string_view presented);

}  // namespace retro
