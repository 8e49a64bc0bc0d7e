// libretro_cuda_graph.so. Its symbols of torch and CUDA are those of the process that loads it: see OpenDevice.
#include "common/torch/cuda_graph_module.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <memory>

namespace retro {
namespace {

class TorchCudaGraph : public CudaGraph {
 public:
  // The current stream must not be the default one. Only what this thread does is recorded.
  void Capture(at::cuda::MempoolId_t pool, const std::function<void()>& work) {
    graph_.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      EndQuietly();
      throw;
    }
    graph_.capture_end();
  }

  void Replay() override { graph_.replay(); }

 private:
  // A recording that failed is void, and says so again when it is ended.
  void EndQuietly() {
    try {
      graph_.capture_end();
    } catch (const c10::Error&) {
      return;
    }
  }

  at::cuda::CUDAGraph graph_;
};

// By device, all graphs are recorded on one stream, whose workspaces the warm-up makes, and into one pool of memory.
struct Place {
  c10::cuda::CUDAStream stream;
  at::cuda::MempoolId_t pool;
};

const Place& PlaceOf(c10::DeviceIndex device) {
  thread_local std::map<c10::DeviceIndex, Place> places;
  const auto found = places.find(device);
  if (found != places.end()) return found->second;
  const Place place = {c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device), at::cuda::graph_pool_handle()};
  return places.emplace(device, place).first->second;
}

}  // namespace
}  // namespace retro

extern "C" retro::CudaGraph* RetroCaptureCudaGraph(int device, const std::function<void()>& work) {
  const c10::cuda::CUDAGuard on_device(static_cast<c10::DeviceIndex>(device));
  const retro::Place& place = retro::PlaceOf(static_cast<c10::DeviceIndex>(device));
  c10::cuda::device_synchronize();  // the stream does not wait for the default one
  auto graph = std::make_unique<retro::TorchCudaGraph>();
  {
    const c10::cuda::CUDAStreamGuard on_stream(place.stream);
    work();
    place.stream.synchronize();
    graph->Capture(place.pool, work);
  }
  c10::cuda::device_synchronize();
  return graph.release();
}
