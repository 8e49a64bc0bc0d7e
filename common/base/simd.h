// Several floats at a time, by the compilers' vector extension. Eight: AVX2 where the build's -march has it, still
// correct where it has not. Sixteen where the build defines RETRO_SIMD_AVX512 for a file and gives it the instructions,
// AVX-512 and VNNI; what is here for sixteen is what such files need. Only for .cc files with kernels.
#pragma once

#if defined(__F16C__) && defined(__FMA__)
#include <immintrin.h>
#endif

#include <bit>
#include <cstdint>
#include <cstring>

namespace retro::simd {
// A name of their own for each width: one program may hold files of both.
#if defined(RETRO_SIMD_AVX512)
inline namespace avx512 {
inline constexpr int kLanes = 16;
#else
inline namespace base {
inline constexpr int kLanes = 8;
#endif

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
inline void StoreInts(int32_t* to, Ints value) { std::memcpy(to, &value, sizeof(value)); }
inline Floats ToFloats(Ints value) { return __builtin_convertvector(value, Floats); }
// Less nothing, not plus: that would make 0 of -0, and so be work.
inline Floats Splat(float value) { return value - Floats{}; }
inline Ints SplatInt(int32_t value) { return Ints{} + value; }
inline Floats Min(Floats a, Floats b) { return a < b ? a : b; }
inline Floats Max(Floats a, Floats b) { return a > b ? a : b; }

// IEEE half precision, round to nearest even; for where the instructions are missing, through the compiler's own type.
#if defined(RETRO_SIMD_AVX512)
inline Floats LoadHalves(const uint16_t* from) {
  // All of them; the form without a mask makes GCC 12 warn of its own header.
  return _mm512_maskz_cvtph_ps(__mmask16{0xFFFF}, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
// a * b + c, rounded once.
inline Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
// Lane by lane, sums plus the products of four bytes: weights are 0 ... 255, the factors -64 ... 63.
inline Ints AddByteProducts(Ints sums, Ints weights, Ints factors) {
  return std::bit_cast<Ints>(_mm512_dpbusd_epi32(std::bit_cast<__m512i>(sums), std::bit_cast<__m512i>(weights),
                                                 std::bit_cast<__m512i>(factors)));
}
#elif defined(__F16C__) && defined(__FMA__)
inline Floats LoadHalves(const uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline void StoreHalves(uint16_t* to, Floats value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
inline float FromHalf(uint16_t half) { return _cvtsh_ss(half); }
// a * b + c, rounded once.
inline Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
// As above; in pairs, whose sums these ranges keep within 16 bits.
inline Ints AddByteProducts(Ints sums, Ints weights, Ints factors) {
  const __m256i pairs = _mm256_maddubs_epi16(std::bit_cast<__m256i>(weights), std::bit_cast<__m256i>(factors));
  return sums + std::bit_cast<Ints>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
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
inline Ints AddByteProducts(Ints sums, Ints weights, Ints factors) {
  const auto* weight = reinterpret_cast<const uint8_t*>(&weights);
  const auto* factor = reinterpret_cast<const int8_t*>(&factors);
  for (int i = 0; i < 4 * kLanes; ++i) sums[i / 4] += weight[i] * factor[i];
  return sums;
}
inline Floats SumEach(const Floats (&values)[kLanes]) {
  Floats sums = {};
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < kLanes; ++j) sums[i] += values[i][j];
  }
  return sums;
}
#endif

#if !defined(RETRO_SIMD_AVX512)
// Element j of vector i becomes element i of vector j.
inline void Transpose(Floats (&rows)[kLanes]) {
  Floats pairs[kLanes];
  for (int i = 0; i < kLanes; i += 2) {
    pairs[i] = __builtin_shufflevector(rows[i], rows[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    pairs[i + 1] = __builtin_shufflevector(rows[i], rows[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  Floats fours[kLanes];
  for (const int i : {0, 1, 4, 5}) {
    fours[i] = __builtin_shufflevector(pairs[i], pairs[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    fours[i + 2] = __builtin_shufflevector(pairs[i], pairs[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  for (int i = 0; i < kLanes / 2; ++i) {
    rows[i] = __builtin_shufflevector(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    rows[i + 4] = __builtin_shufflevector(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}
#endif

// The whole numbers nearest to value * factor, of two the even one; below 2^22.
inline Ints Rounded(Floats value, float factor) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves no bits for a fraction
  return __builtin_convertvector(MultiplyAdd(value, Splat(factor), Splat(kRound)) - kRound, Ints);
}

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

inline float LargestMagnitude(const float* values, int64_t count) {
  Floats largest = {};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats next = Load(values + i);
    largest = Max(largest, Max(next, -next));
  }
  float all = Largest(largest);
  for (int64_t i = whole; i < count; ++i) all = __builtin_fmaxf(all, __builtin_fabsf(values[i]));
  return all;
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

}  // inline namespace
}  // namespace retro::simd
