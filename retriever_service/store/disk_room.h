// How much of a disk is taken, whether a full one has room again, and what callers are told of one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace retro {

// RESOURCE_EXHAUSTED (READ_ONLY), to be tried again in some seconds.
absl::Status ReadOnlyError(std::string_view why);
// The same for the disk that `folder` is on; `text` says what met it.
absl::Status DiskFullError(const std::string& folder, std::string_view text);

// The same of a disk that has room again, while the database cannot be opened anew for those who use it.
absl::Status BusyWithReadersError(const std::string& folder);
// UNAVAILABLE (SHARD_UNAVAILABLE): what was under way while it was.
absl::Status OpenedAnewError(const std::string& folder);

// DiskFullError unless there is room for what opening the database in `folder` writes: a table of what its logs hold,
// and small files.
absl::Status CheckRoom(const std::string& folder);

// Of all files in a folder and in those within.
uint64_t BytesIn(const std::string& folder);

}  // namespace retro
