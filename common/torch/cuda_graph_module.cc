// libretro_cuda_graph.so. Its symbols of torch and CUDA are those of the process that loads it: see OpenDevice.
#include "common/torch/cuda_graph_module.h"

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <memory>
#include <utility>

namespace retro {
namespace {

// By device, all graphs are recorded on one stream, whose workspaces the warm-up makes, and into one pool of memory,
// which lives as long as one of them does: torch takes no pool again that it has given up.
struct Place {
  explicit Place(c10::DeviceIndex device)
      : device(device), stream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device)) {}

  const c10::DeviceIndex device;
  const c10::cuda::CUDAStream stream;
  at::cuda::MempoolId_t pool;
  int64_t graphs = 0;  // that live
};

class TorchCudaGraph : public CudaGraph {
 public:
  explicit TorchCudaGraph(std::shared_ptr<Place> place) : place_(std::move(place)) {
    if (place_->graphs++ == 0) place_->pool = at::cuda::graph_pool_handle();
  }
  ~TorchCudaGraph() override {
    graph_.reset();  // before the pool is known to have one user less
    --place_->graphs;
  }
  TorchCudaGraph(const TorchCudaGraph&) = delete;
  TorchCudaGraph& operator=(const TorchCudaGraph&) = delete;

  // The current stream must not be the default one. Only what this thread does is recorded.
  void Capture(const std::function<void()>& work) {
    try {
      graph_->capture_begin(place_->pool, cudaStreamCaptureModeThreadLocal);
      work();
      graph_->capture_end();
    } catch (...) {
      Quietly([&] { graph_->capture_end(); });  // a recording that failed is void, and says so again when it is ended
      // In which case torch has not yet stopped to take memory from the pool.
      Quietly([&] { c10::cuda::CUDACachingAllocator::endAllocateToPool(place_->device, place_->pool); });
      Quietly([&] { at::getHostAllocator(at::kCUDA)->end_allocate_to_pool(place_->pool); });
      throw;
    }
  }

  void Replay() override { graph_->replay(); }

 private:
  static void Quietly(const std::function<void()>& work) {
    try {
      work();
    } catch (const c10::Error&) {
      return;
    }
  }

  const std::shared_ptr<Place> place_;
  std::unique_ptr<at::cuda::CUDAGraph> graph_ = std::make_unique<at::cuda::CUDAGraph>();
};

std::shared_ptr<Place> PlaceOf(c10::DeviceIndex device) {
  thread_local std::map<c10::DeviceIndex, std::shared_ptr<Place>> places;
  std::shared_ptr<Place>& place = places[device];
  if (place == nullptr) place = std::make_shared<Place>(device);
  return place;
}

}  // namespace
}  // namespace retro

extern "C" retro::CudaGraph* RetroCaptureCudaGraph(int device, const std::function<void()>& work) {
  const c10::cuda::CUDAGuard on_device(static_cast<c10::DeviceIndex>(device));
  const std::shared_ptr<retro::Place> place = retro::PlaceOf(static_cast<c10::DeviceIndex>(device));
  c10::cuda::device_synchronize();  // the stream does not wait for the default one
  auto graph = std::make_unique<retro::TorchCudaGraph>(place);
  {
    const c10::cuda::CUDAStreamGuard on_stream(place->stream);
    work();
    place->stream.synchronize();
    graph->Capture(work);
  }
  c10::cuda::device_synchronize();
  return graph.release();
}
