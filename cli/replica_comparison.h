// retro admin verify --all: whether the replicas of each shard hold the same.
#pragma once

#include "cli/common_options.h"
#include "cli/console.h"

namespace retro::cli {

// Asks all replicas of a shard for a checksum at the same time, one shard after the other, and prints a line for each:
// at equal positions it must be its primary's. A shard that is written to is asked a few times, until the positions are
// equal. kFailed if a replica differs, could not be compared or did not answer; kUnreachable if the retriever does not.
int CompareReplicas(const CommonOptions& options, const Console& console);

}  // namespace retro::cli
