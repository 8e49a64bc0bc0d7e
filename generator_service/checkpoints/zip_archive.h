// Zip archives whose entries are stored, not packed: what torch.save writes. Bounded, for files of unknown origin.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace retro {

inline constexpr size_t kZipEntriesMax = 1'000'000;

// The entries' bytes by name, views into `archive`. INVALID_ARGUMENT for anything malformed, packed or encrypted, a
// name used twice, or an entry that does not lie within the archive. Sizes beyond 4 GB (zip64) are read.
absl::StatusOr<std::map<std::string, std::string_view, std::less<>>> ReadZipArchive(std::string_view archive);

}  // namespace retro
