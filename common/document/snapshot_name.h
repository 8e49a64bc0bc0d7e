// What the names of snapshots begin with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/hash.h"
#include "common/base/strings.h"

namespace retro {

// Alike for all snapshots of one shard of one store, and for no others: several stores may have one folder. The time
// that a snapshot was made follows, so that the names of one shard are in the order of time.
inline std::string SnapshotNamePrefix(std::string_view store_id, uint32_t shard) {
  constexpr size_t kStoreDigits = 8;  // enough to tell two stores apart
  return StrCat(HexEncode(store_id).substr(0, kStoreDigits), "-shard", shard, "-");
}

}  // namespace retro
