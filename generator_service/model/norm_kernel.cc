#include "generator_service/model/norm_kernel.h"

#include <cmath>

#include "common/base/simd.h"
#include "generator_service/model/compute_team.h"

namespace retro {
namespace {

using simd::Floats;
using simd::kLanes;

// Elements that are done before another core has heard of them.
constexpr int64_t kSharedWork = 1 << 14;

float SumOfSquares(const float* x, int64_t width) {
  constexpr int64_t kSums = 4;
  Floats sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums * kLanes <= width; i += kSums * kLanes) {
    for (int64_t s = 0; s < kSums; ++s) {
      const Floats value = simd::Load(x + i + s * kLanes);
      sums[s] = simd::MultiplyAdd(value, value, sums[s]);
    }
  }
  float sum = simd::Sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < width; ++i) sum += x[i] * x[i];
  return sum;
}

void NormRow(const float* x, const float* gain, float eps, int64_t width, float* y) {
  const float scale = 1.0F / std::sqrt(SumOfSquares(x, width) / static_cast<float>(width) + eps);
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    simd::Store(y + i, simd::Load(x + i) * scale * simd::Load(gain + i));
  }
  for (; i < width; ++i) y[i] = x[i] * scale * gain[i];
}

}  // namespace

void RmsNormRows(const float* x, const float* gain, float eps, int64_t rows, int64_t width, float* y) {
  const auto norm = [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) NormRow(x + r * width, gain, eps, width, y + r * width);
  };
  if (rows * width < kSharedWork) return norm(0, rows);
  ShareOut(rows, norm);
}

}  // namespace retro
