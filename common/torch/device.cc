#include "common/torch/device.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <dlfcn.h>

#include <charconv>
#include <string_view>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/torch_status.h"

namespace retro {
namespace {

constexpr char kCudaLibrary[] = "libtorch_cuda.so";
constexpr std::string_view kCudaPrefix = "cuda:";
constexpr int kIndexMax = 127;  // what torch's device index holds

absl::StatusOr<int> CudaIndex(const std::string& name) {
  if (name == "cuda") return 0;
  if (name.starts_with(kCudaPrefix)) {
    int index = 0;
    const char* end = name.data() + name.size();
    const auto [stopped, error] = std::from_chars(name.data() + kCudaPrefix.size(), end, index);
    if (error == std::errc() && stopped == end && index >= 0 && index <= kIndexMax) return index;
  }
  return absl::InvalidArgumentError(StrCat("device \"", name, "\" is not known: say cpu, cuda or cuda:N"));
}

absl::StatusOr<at::Device> OpenCuda(int index) {
  // Before the first question about devices: torch remembers that there was no CUDA.
  if (dlopen(kCudaLibrary, RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return absl::FailedPreconditionError(
        StrCat("CUDA is not usable here (", std::string_view(dlerror()),
               "); use --device cpu, or install torch with the nvidia wheels that it names"));
  }
  return CatchTorch([&]() -> absl::StatusOr<at::Device> {
    const int count = at::hasCUDA() ? static_cast<int>(at::getNumGPUs()) : 0;
    if (index < count) return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
    return absl::FailedPreconditionError(
        StrCat("there is no CUDA device ", index, ", this machine has ", count, "; use --device cpu or another"));
  });
}

}  // namespace

absl::StatusOr<at::Device> OpenDevice(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  RETRO_ASSIGN_OR_RETURN(const int index, CudaIndex(name));
  return OpenCuda(index);
}

}  // namespace retro
