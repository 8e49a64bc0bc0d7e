// Norms of rows on the CPU, one pass over each: what the library makes of several operations takes longer than the
// product that follows, where the rows are few.
#pragma once

#include <cstdint>

namespace retro {

// y = gain x / sqrt(mean(x^2) + eps), row by row. x, y: [rows, width]; gain: [width]. A row's result does not depend on
// the others. Rows are shared out over the calling thread's workers.
void RmsNormRows(const float* x, const float* gain, float eps, int64_t rows, int64_t width, float* y);

}  // namespace retro
