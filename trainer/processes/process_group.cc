#include "trainer/processes/process_group.h"

#include <ATen/ATen.h>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "trainer/processes/launch.h"
#include "trainer/processes/mpi_group.h"
#include "trainer/processes/nccl_group.h"

namespace retro {

std::vector<int64_t> ProcessGroup::Gather(int64_t value) {
  at::Tensor values = at::zeros({size_}, at::kLong);
  values[rank_].fill_(value);
  values = values.to(device());
  Sum({values});
  values = values.to(at::kCPU);
  return {values.const_data_ptr<int64_t>(), values.const_data_ptr<int64_t>() + size_};
}

std::string ProcessGroup::Said(const std::string& reason) const {
  return StrCat("rank ", rank_, " of ", size_, ": ", reason);
}

absl::StatusOr<ProcessPlace> OpenProcessPlace(const std::string& device) {
  ProcessPlace place = {.device = device};
  const bool cpu = device == "cpu";
  if (cpu && StartedByMpi()) {
    RETRO_ASSIGN_OR_RETURN(place.group, OpenMpiGroup());
    return place;
  }
  RETRO_ASSIGN_OR_RETURN(const std::optional<Launch> launch, LaunchOfTorchrun());
  if (!launch && StartedByMpi()) {
    return absl::FailedPreconditionError("mpirun starts processes for --device cpu; for GPUs start with torchrun");
  }
  if (!launch) return place;
  if (cpu && launch->size == 1) return place;
  if (cpu) return absl::FailedPreconditionError("torchrun starts processes for --device cuda; on the CPU use mpirun");
  if (device == "cuda") place.device = StrCat("cuda:", launch->local_rank);
  RETRO_ASSIGN_OR_RETURN(place.group, OpenNcclGroup(*launch, place.device));
  return place;
}

}  // namespace retro
