// Which of several processes this one is, as the programs that start them say it in environment variables.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace retro {

struct Launch {
  int rank = 0;
  int size = 1;
  int local_rank = 0;   // on this machine
  std::string address;  // where rank 0 is met
  uint16_t port = 0;
  bool served = false;     // the launcher itself keeps the store there
  std::string key_prefix;  // in that store, which outlives a group that torchrun starts again
};

// mpirun (Open MPI, or one that speaks PMI) has started this process with others.
bool StartedByMpi();

// nullopt: neither RANK nor WORLD_SIZE is set. INVALID_ARGUMENT naming the variable that is missing or no number.
absl::StatusOr<std::optional<Launch>> LaunchOfTorchrun();

}  // namespace retro
