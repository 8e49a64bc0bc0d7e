// `retro-train prepare`: documents to a data set with neighbours.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "trainer/token_files.h"

namespace retro {

struct PrepareOptions {
  TokenFileOptions tokens;             // without documents: tokens.out holds the data set already
  std::string embedder;                // folder; empty: neighbours come from elsewhere, or there are none
  std::string embedder_fingerprint;    // hex, recorded in place of its own; empty: its own
  std::string device = "cpu";          // of embedder and search
  std::vector<std::string> databases;  // data sets to search; empty: the one that is made
  std::string neighbours_from;         // folder of neighbours.json and neighbours.bin; empty: found here
  int64_t k = 2;
};

// Every part goes on where it was killed, and parts that are done are not done again.
absl::Status Prepare(const PrepareOptions& options, const Report& report);

}  // namespace retro
