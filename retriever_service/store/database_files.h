// What must be in a database's folder before RocksDB is asked to open it. Where a file is missing RocksDB may go on
// with the others, and what it writes then does away with them or makes the missing one useless: without CURRENT it
// makes a new database, whose next opening deletes the tables of the old one; without its log it takes what that held
// for never written.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace retro {

// Whether the folder has a database; if not, one may be made there. DATA_LOSS (STORE_DAMAGED), naming what is missing,
// if it has only a part of one. `opened_before`, for writing: it must have one, with a log. Changes nothing.
absl::StatusOr<bool> FindDatabase(const std::string& folder, bool opened_before);

// The write-ahead logs that are there, for messages.
std::string LogsIn(const std::string& folder);

}  // namespace retro
