// Whether a full disk has room again, and what callers are told of one.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace retro {

// RESOURCE_EXHAUSTED (READ_ONLY), to be tried again in some seconds.
absl::Status ReadOnlyError(std::string_view why);
// The same for the disk that `folder` is on; `text` says what met it.
absl::Status DiskFullError(const std::string& folder, std::string_view text);

// DiskFullError unless there is room for what opening the database in `folder` writes: a table of what its logs hold,
// and small files.
absl::Status CheckRoom(const std::string& folder);

}  // namespace retro
