// What RocksDB must not be shown: it reads the block of a table's properties before it compares that block's checksum,
// as other programs may have changed a number in it. A build with assertions, as Debian's is, ends the process if the
// block claims to be of a kind that the properties never are. Source: RocksDB 7.8, table/block_based (reader, builder,
// data_block_footer) and table/format (footer); our tables have format version 5.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace retro {

// DATA_LOSS (STORE_DAMAGED), naming the file, if a table in the folder is so damaged that opening it would end the
// process. Of other damage opening tells. Reads the last bytes of each table.
absl::Status CheckTableTails(const std::string& folder);

}  // namespace retro
