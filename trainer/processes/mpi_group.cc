#include "trainer/processes/mpi_group.h"

#include <ATen/ATen.h>
#include <dlfcn.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string_view>

#include "common/base/strings.h"
#include "trainer/processes/mpi_calls.h"

namespace retro {
namespace {

struct MpiPlace {
  int rank = 0;
  int size = 1;
};

class MpiGroup : public ProcessGroup {
 public:
  MpiGroup(const MpiCalls& calls, const MpiPlace& place) : ProcessGroup(place.rank, place.size), calls_(calls) {}

  // mpirun ends the others of a process that goes without this call.
  ~MpiGroup() override {
    if (std::uncaught_exceptions() == 0) calls_.finish();
  }

  void Sum(const std::vector<at::Tensor>& tensors) override {
    for (const at::Tensor& tensor : tensors) {
      TORCH_CHECK(tensor.is_cpu() && tensor.is_contiguous(), "a tensor to be summed is not a plain array");
      const at::ScalarType type = tensor.scalar_type();
      TORCH_CHECK(type == at::kFloat || type == at::kDouble || type == at::kLong, "no sums over processes of ", type);
      const MpiNumber number = type == at::kFloat    ? MpiNumber::kFloat
                               : type == at::kDouble ? MpiNumber::kDouble
                                                     : MpiNumber::kInt64;
      calls_.sum(tensor.mutable_data_ptr(), tensor.numel(), number);
    }
  }

  [[noreturn]] void Abort(const std::string& reason) override {
    std::cerr << Said(reason) + "\n" << std::flush;
    calls_.abort();
    std::_Exit(1);
  }

 private:
  at::Device device() const override { return at::kCPU; }

  const MpiCalls& calls_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> OpenMpiGroup() {
  const std::string path = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / kMpiModule).string();
  // Global, since MPI's own plugins look for its symbols among those of the process.
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  const void* calls = module == nullptr ? nullptr : dlsym(module, kMpiCallsName);
  if (calls == nullptr) {
    return absl::FailedPreconditionError(
        StrCat("MPI is not usable here (", std::string_view(dlerror()),
               "); install libopenmpi-dev and openmpi-bin, configure and build again, or start one process alone"));
  }
  const auto& mpi = *static_cast<const MpiCalls*>(calls);
  MpiPlace place;
  mpi.start(&place.rank, &place.size);
  return std::make_unique<MpiGroup>(mpi, place);
}

}  // namespace retro
