// Who a call is from, where API keys are in force, and what its key lets it do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace retro {

inline constexpr size_t kCollectionFieldBytesMax = 128;

struct Caller {
  std::string key;                                   // the key's name, never the key
  std::string key_hash;                              // as in the file of keys
  std::optional<std::set<std::string>> collections;  // all, if not set; "" is the default one
  std::optional<int64_t> generated_tokens_max;       // of one generation
  std::shared_ptr<void> place;  // one of the key's streams_max, until the last copy of this is gone
};

// INVALID_ARGUMENT for a name that no collection can have: it would be repeated in errors and logs. `field` is its path
// in the request.
absl::Status CheckCollectionLength(std::string_view field, std::string_view name);

// PERMISSION_DENIED if the caller's key is not for this collection; nobody in particular (null) may use all.
absl::Status CheckCollection(const Caller* caller, std::string_view collection);

// PERMISSION_DENIED if the caller's key does not let it generate so many tokens at once.
absl::Status CheckGeneratedTokens(const Caller* caller, int64_t tokens);

}  // namespace retro
