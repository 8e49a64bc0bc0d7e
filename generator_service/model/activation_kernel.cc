#include "generator_service/model/activation_kernel.h"

#include "common/base/simd.h"
#include "generator_service/model/compute_team.h"

namespace retro {
namespace {

using simd::Floats;
using simd::kLanes;

// Elements that are done before another core has heard of them.
constexpr int64_t kSharedWork = 1 << 15;

template <Floats (*kActivation)(Floats)>
void ActivateRange(float* x, int64_t count) {
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) simd::Store(x + i, kActivation(simd::Load(x + i)));
  for (int64_t i = whole; i < count; ++i) x[i] = kActivation(simd::Splat(x[i]))[0];
}

void ActivateRange(Activation activation, float* x, int64_t count) {
  switch (activation) {
    case Activation::kGeluTanh:
      return ActivateRange<simd::GeluTanh>(x, count);
    case Activation::kGeluErf:
      return ActivateRange<simd::Gelu>(x, count);
    case Activation::kSilu:
      return ActivateRange<simd::Silu>(x, count);
    case Activation::kRelu:
      return ActivateRange<simd::Relu>(x, count);
  }
}

}  // namespace

void ActivateInPlace(Activation activation, float* x, int64_t count) {
  if (count < kSharedWork) return ActivateRange(activation, x, count);
  ShareOut(count, [&](int64_t begin, int64_t end) { ActivateRange(activation, x + begin, end - begin); });
}

}  // namespace retro
