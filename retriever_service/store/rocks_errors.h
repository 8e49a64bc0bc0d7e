// What RocksDB's errors are called here.
#pragma once

#include <rocksdb/status.h>

#include <string>

#include "absl/status/status.h"

namespace retro {

bool IsNoSpace(const rocksdb::Status& status);

// Of files that are not as they were written: changed, missing, or such that the disk does not give them back.
bool IsDamage(const rocksdb::Status& status);

// True of a write for which the disk had no room, and of which nothing is read back: its record was cut short in the
// log, or the log or a table before it could not be made. Of one whose log could not be synced the record may be whole.
bool DidNothing(const rocksdb::Status& status);

// RESOURCE_EXHAUSTED (READ_ONLY), DATA_LOSS (STORE_DAMAGED), FAILED_PRECONDITION (STORE_LOCKED) or INTERNAL, which name
// the store's folder; OK for OK.
absl::Status FromRocks(const rocksdb::Status& status, const std::string& path);

}  // namespace retro
