// Between cuda_graph.cc and the library that it loads.
#pragma once

#include <functional>

#include "common/torch/cuda_graph.h"

namespace retro {

// The caller owns the result. Throws c10::Error.
using CaptureCall = CudaGraph*(int device, const std::function<void()>& work);

inline constexpr char kCaptureCallName[] = "RetroCaptureCudaGraph";

}  // namespace retro
