// Eight floats at a time, by the compilers' vector extension: AVX2 where the build's -march has it, still correct where
// it has not. Only for .cc files with kernels.
#pragma once

#if defined(__F16C__) && defined(__FMA__)
#include <immintrin.h>
#endif

#include <bit>
#include <cstdint>
#include <cstring>

namespace retro::simd {

inline constexpr int kLanes = 8;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));

inline Floats Load(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
inline void Store(float* to, Floats value) { std::memcpy(to, &value, sizeof(value)); }
inline Ints LoadInts(const int32_t* from) {
  Ints value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
inline Floats ToFloats(Ints value) { return __builtin_convertvector(value, Floats); }
inline Floats Splat(float value) { return Floats{} + value; }
inline Floats Min(Floats a, Floats b) { return a < b ? a : b; }
inline Floats Max(Floats a, Floats b) { return a > b ? a : b; }

// IEEE half precision, round to nearest even; for where the instructions are missing, through the compiler's own type.
#if defined(__F16C__) && defined(__FMA__)
inline Floats LoadHalves(const uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline void StoreHalves(uint16_t* to, Floats value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
inline float FromHalf(uint16_t half) { return _cvtsh_ss(half); }
// a * b + c, rounded once.
inline Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
// The sum of each, in order.
inline Floats SumEach(const Floats (&values)[kLanes]) {
  const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(values[0], values[1]), _mm256_hadd_ps(values[2], values[3]));
  const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(values[4], values[5]), _mm256_hadd_ps(values[6], values[7]));
  return _mm256_permute2f128_ps(low, high, 0x20) + _mm256_permute2f128_ps(low, high, 0x31);
}
#else
inline float FromHalf(uint16_t half) { return static_cast<float>(std::bit_cast<_Float16>(half)); }
inline Floats LoadHalves(const uint16_t* from) {
  Floats value;
  for (int i = 0; i < kLanes; ++i) value[i] = FromHalf(from[i]);
  return value;
}
inline void StoreHalves(uint16_t* to, Floats value) {
  for (int i = 0; i < kLanes; ++i) to[i] = std::bit_cast<uint16_t>(static_cast<_Float16>(value[i]));
}
inline Floats MultiplyAdd(Floats a, Floats b, Floats c) {
  for (int i = 0; i < kLanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
}
inline Floats SumEach(const Floats (&values)[kLanes]) {
  Floats sums = {};
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < kLanes; ++j) sums[i] += values[i][j];
  }
  return sums;
}
#endif

inline float Sum(Floats value) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += value[i];
  return sum;
}
inline float Largest(Floats value) {
  float largest = value[0];
  for (int i = 1; i < kLanes; ++i) largest = value[i] > largest ? value[i] : largest;
  return largest;
}

// e^x with a relative error below 3e-7 for x in [-87, 88]; beyond, as at the end of that range.
// 2^n * 2^t, n whole, |t| <= 1/2; the polynomial for 2^t is the least-squares fit of relative error, degree 6.
inline Floats Exp(Floats x) {
  x = Min(Max(x, Splat(-87.0f)), Splat(88.0f));
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves no bits for a fraction
  const Floats scaled = x * 1.44269504f;
  const Floats whole = (scaled + kRound) - kRound;
  // x * log2(e) - n in two steps keeps the bits that the product lost.
  const Floats t = (x - whole * 0.693145752f - whole * 1.42860677e-6f) * 1.44269504f;
  Floats p = Splat(1.533758510e-4f);
  p = p * t + 1.339986991e-3f;
  p = p * t + 9.618519591e-3f;
  p = p * t + 5.550328974e-2f;
  p = p * t + 2.402264661e-1f;
  p = p * t + 6.931472056e-1f;
  p = p * t + 1.0f;
  const Ints power = (__builtin_convertvector(whole, Ints) + 127) << 23;
  return p * std::bit_cast<Floats>(power);
}

// The error function with an absolute error below 1e-6; exactly -1 and 1 beyond 3.95, where it has come to within 3e-8:
// gelu multiplies the distance by x. Inside, z * P(z^2) / Q(z^2) with coefficients by reweighted least squares.
inline Floats Erf(Floats z) {
  constexpr float kEnd = 3.95f;
  const Floats u = Min(z * z, Splat(kEnd * kEnd));
  Floats p = Splat(-1.335935510e-6f);
  p = p * u + 2.346908136e-4f;
  p = p * u + 9.456892085e-3f;
  p = p * u + 7.047030755e-2f;
  p = p * u + 3.476735162e-1f;
  p = p * u + 1.128382918f;
  Floats q = Splat(2.192257900e-3f);
  q = q * u + 2.679049749e-2f;
  q = q * u + 1.762450961e-1f;
  q = q * u + 6.414730511e-1f;
  q = q * u + 1.0f;
  const Floats inside = z * p / q;
  return z > kEnd ? Splat(1.0f) : z < -kEnd ? Splat(-1.0f) : inside;
}

inline Floats Gelu(Floats x) { return 0.5f * x * (1.0f + Erf(x * 0.707106781f)); }

// x * (1 + tanh(u)) / 2 = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3) (Hendrycks & Gimpel 2016).
inline Floats GeluTanh(Floats x) {
  const Floats u = 0.797884561f * (x + 0.044715f * x * x * x);
  return x / (1.0f + Exp(-2.0f * u));
}

inline Floats Silu(Floats x) { return x / (1.0f + Exp(-x)); }
inline Floats Relu(Floats x) { return Max(x, Floats{}); }

}  // namespace retro::simd
