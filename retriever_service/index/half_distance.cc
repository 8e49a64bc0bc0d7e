#include "retriever_service/index/half_distance.h"

#include <immintrin.h>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/document/half.h"

namespace retro {
namespace {

constexpr size_t kLanes = 8;
constexpr size_t kSums = 4;  // that do not wait for each other

__m256 Eight(const char* halves) {
  __m128i eight;
  std::memcpy(&eight, halves, sizeof eight);
  return _mm256_cvtph_ps(eight);
}

__m256 AddSquare(__m256 sum, const float* query, const char* halves) {
  const __m256 difference = _mm256_sub_ps(_mm256_loadu_ps(query), Eight(halves));
  return _mm256_fmadd_ps(difference, difference, sum);
}

float SumOf(__m256 eight) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace

float SquaredDistance(std::span<const float> query, std::string_view vector) {
  assert(vector.size() == query.size() * kHalfBytes);
  __m256 sums[kSums] = {};
  size_t i = 0;
  for (; i + kLanes * kSums <= query.size(); i += kLanes * kSums) {
    for (size_t j = 0; j < kSums; ++j) {
      const size_t at = i + j * kLanes;
      sums[j] = AddSquare(sums[j], query.data() + at, vector.data() + at * kHalfBytes);
    }
  }
  for (; i + kLanes <= query.size(); i += kLanes) {
    sums[0] = AddSquare(sums[0], query.data() + i, vector.data() + i * kHalfBytes);
  }
  float sum = SumOf(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])));
  for (; i < query.size(); ++i) {
    uint16_t half;
    std::memcpy(&half, vector.data() + i * kHalfBytes, kHalfBytes);
    const float difference = query[i] - _cvtsh_ss(half);
    sum += difference * difference;
  }
  return sum;
}

}  // namespace retro
