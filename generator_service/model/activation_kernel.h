// A layer's activation on the CPU. The library's takes the last few elements of its share another way than the others,
// so that a value would depend on what stands beside it; here it does not.
#pragma once

#include <cstdint>

#include "generator_service/model/config.h"

namespace retro {

// In place, shared out over the calling thread's workers.
void ActivateInPlace(Activation activation, float* x, int64_t count);

}  // namespace retro
