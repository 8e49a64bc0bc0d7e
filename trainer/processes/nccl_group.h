// The processes that torchrun started, one a GPU.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "trainer/processes/launch.h"
#include "trainer/processes/process_group.h"

namespace retro {

// FAILED_PRECONDITION: no such CUDA device, or no NCCL; UNAVAILABLE: the others did not come.
absl::StatusOr<std::unique_ptr<ProcessGroup>> OpenNcclGroup(const Launch& launch, const std::string& device);

}  // namespace retro
