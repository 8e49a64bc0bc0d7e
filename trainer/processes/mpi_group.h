// The processes that mpirun started, on CPUs.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "trainer/processes/process_group.h"

namespace retro {

// FAILED_PRECONDITION: this program was built without MPI.
absl::StatusOr<std::unique_ptr<ProcessGroup>> OpenMpiGroup();

}  // namespace retro
