#include "common/document/half.h"

#include <immintrin.h>

#include <bit>
#include <cassert>
#include <cstdint>
#include <cstring>

namespace retro {

static_assert(std::endian::native == std::endian::little, "vectors are stored little-endian");

std::string ToHalf(std::span<const float> values) {
  std::string halves(values.size() * kHalfBytes, '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = _cvtss_sh(values[i], _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(halves.data() + i * kHalfBytes, &half, kHalfBytes);
  }
  return halves;
}

void FromHalf(std::string_view halves, std::span<float> values) {
  assert(halves.size() == values.size() * kHalfBytes);
  size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    __m128i eight;
    std::memcpy(&eight, halves.data() + i * kHalfBytes, sizeof eight);
    _mm256_storeu_ps(values.data() + i, _mm256_cvtph_ps(eight));
  }
  for (; i < values.size(); ++i) {
    uint16_t half;
    std::memcpy(&half, halves.data() + i * kHalfBytes, kHalfBytes);
    values[i] = _cvtsh_ss(half);
  }
}

bool AllFinite(std::string_view halves) {
  constexpr uint16_t kExponentMask = 0x7C00;
  for (size_t i = 0; i + kHalfBytes <= halves.size(); i += kHalfBytes) {
    uint16_t bits;
    std::memcpy(&bits, halves.data() + i, kHalfBytes);
    if ((bits & kExponentMask) == kExponentMask) return false;
  }
  return true;
}

}  // namespace retro
