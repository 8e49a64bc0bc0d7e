#include "generator_service/model/matrix_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/base/simd.h"
#include "generator_service/model/matrix_loops.h"

namespace retro {
namespace {

using simd::Floats;
using simd::Ints;
using simd::kLanes;
using Bytes = int8_t __attribute__((vector_size(kLanes)));

// The parts of kLanes values that factor makes whole numbers of; their sums are added to.
struct ByteParts {
  Ints high_sums = {};
  Ints low_sums = {};

  void Take(Floats values, float factor, int8_t* high, int8_t* low) {
    const Ints whole = simd::Rounded(values, factor);
    const Ints high_part = (whole + ByteRows::kHighUnit / 2) >> 7;
    const Ints low_part = whole - high_part * ByteRows::kHighUnit;
    high_sums += high_part;
    low_sums += low_part;
    const Bytes high_bytes = __builtin_convertvector(high_part, Bytes);
    const Bytes low_bytes = __builtin_convertvector(low_part, Bytes);
    std::memcpy(high, &high_bytes, kLanes);
    std::memcpy(low, &low_bytes, kLanes);
  }
};

int32_t Sum(Ints values) {
  int32_t sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += values[i];
  return sum;
}

bool HasAvx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

}  // namespace

ByteRows::ByteRows(const float* x, int64_t rows, int64_t inputs)
    : stride((inputs + kLanes - 1) / kLanes * kLanes),
      bytes(rows * kParts * stride),
      excess(rows * kParts),
      scales(rows) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * inputs;
    scales[r] = simd::LargestMagnitude(row, inputs) / kLargest;
    const float factor = scales[r] > 0 ? 1 / scales[r] : 0;
    int8_t* high = bytes.data() + r * kParts * stride;
    int8_t* low = high + stride;
    ByteParts parts;
    for (int64_t i = 0; i < inputs; i += kLanes) {
      Floats values = {};
      std::memcpy(&values, row + i, sizeof(float) * std::min<int64_t>(kLanes, inputs - i));
      parts.Take(values, factor, high + i, low + i);
    }
    excess[r * kParts] = kByteOffset * Sum(parts.high_sums);
    excess[r * kParts + 1] = kByteOffset * Sum(parts.low_sums);
  }
}

InstructionSet BestInstructions() {
  static const InstructionSet best = HasAvx512() ? InstructionSet::kAvx512 : InstructionSet::kBase;
  return best;
}

void MultiplyPanels(MatrixFormat format, const PanelProduct& product, int64_t begin, int64_t end,
                    InstructionSet instructions) {
  if (begin >= end || product.rows == 0) return;
  thread_local std::vector<float> scratch;
  scratch.resize(std::max<size_t>(scratch.size(), product.rows * kScratchOfRow));
#if defined(__x86_64__)
  if (instructions == InstructionSet::kAvx512) return MultiplyPanelsAvx512(format, product, begin, end, scratch.data());
#endif
  MultiplyPanelsBase(format, product, begin, end, scratch.data());
}

}  // namespace retro
