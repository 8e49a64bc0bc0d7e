// Tensors for what a step reads from one end to the other, in memory of huge pages (common/base/huge_pages.h).
#pragma once

#include <ATen/ATen.h>

namespace retro {

// On the CPU, uninitialised. Throws std::bad_alloc.
at::Tensor EmptyInHugePages(at::IntArrayRef shape, at::ScalarType type);

}  // namespace retro
