#include "common/torch/cuda_graph.h"

#include <dlfcn.h>

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/cuda_graph_module.h"
#include "common/torch/torch_status.h"

namespace retro {
namespace {

constexpr char kLibrary[] = "libretro_cuda_graph.so";
constexpr std::array<std::string_view, 3> kFolders = {"", "../bin", "../lib"};  // from the program's own

void* OpenLibrary() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  for (const std::string_view folder : kFolders) {
    const std::filesystem::path library = program.parent_path() / folder / kLibrary;
    if (std::filesystem::exists(library, error)) return dlopen(library.c_str(), RTLD_NOW);
  }
  return dlopen(kLibrary, RTLD_NOW);
}

absl::StatusOr<CaptureCall*> LoadCapture() {
  void* library = OpenLibrary();
  void* call = library == nullptr ? nullptr : dlsym(library, kCaptureCallName);
  if (call != nullptr) return reinterpret_cast<CaptureCall*>(call);
  return absl::FailedPreconditionError(StrCat("CUDA graphs cannot be captured (", std::string_view(dlerror()), ")"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaGraph>> CaptureCudaGraph(const at::Device& device,
                                                            const std::function<void()>& work) {
  RETRO_ASSIGN_OR_RETURN(CaptureCall * capture, LoadCapture());
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<CudaGraph>> {
    return std::unique_ptr<CudaGraph>(capture(device.index(), work));
  });
}

}  // namespace retro
