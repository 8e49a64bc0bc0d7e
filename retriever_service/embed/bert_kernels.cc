#include "retriever_service/embed/bert_kernels.h"

#include <algorithm>
#include <cmath>

#include "common/base/simd.h"

namespace retro {
namespace {

using simd::Floats;
using simd::kLanes;

template <Floats (*kActivation)(Floats)>
void AddBiasAndActivateRows(int rows, float* x, std::span<const float> bias) {
  const int width = static_cast<int>(bias.size());
  const int whole = width / kLanes * kLanes;
  for (int r = 0; r < rows; ++r, x += width) {
    for (int i = 0; i < whole; i += kLanes) {
      simd::Store(x + i, kActivation(simd::Load(x + i) + simd::Load(bias.data() + i)));
    }
    for (int i = whole; i < width; ++i) x[i] = kActivation(simd::Splat(x[i] + bias[i]))[0];
  }
}

// x += parts + bias for one row; returns the sum of the row.
float AddParts(int row, float* x, std::span<const float* const> parts, std::span<const float> bias) {
  const int width = static_cast<int>(bias.size());
  const int whole = width / kLanes * kLanes;
  const size_t offset = static_cast<size_t>(row) * width;
  Floats sums = {};
  for (int i = 0; i < whole; i += kLanes) {
    Floats value = simd::Load(x + i) + simd::Load(bias.data() + i);
    for (const float* part : parts) value += simd::Load(part + offset + i);
    simd::Store(x + i, value);
    sums += value;
  }
  float sum = simd::Sum(sums);
  for (int i = whole; i < width; ++i) {
    x[i] += bias[i];
    for (const float* part : parts) x[i] += part[offset + i];
    sum += x[i];
  }
  return sum;
}

float SquaredDistance(const float* x, int width, float mean) {
  const int whole = width / kLanes * kLanes;
  Floats sums = {};
  for (int i = 0; i < whole; i += kLanes) {
    const Floats difference = simd::Load(x + i) - mean;
    sums += difference * difference;
  }
  float sum = simd::Sum(sums);
  for (int i = whole; i < width; ++i) sum += (x[i] - mean) * (x[i] - mean);
  return sum;
}

}  // namespace

void AddAndNormalise(int rows, float* x, std::span<const float* const> parts, std::span<const float> bias,
                     const NormWeights& norm, float epsilon) {
  const int width = static_cast<int>(bias.size());
  for (int r = 0; r < rows; ++r, x += width) {
    const float mean = AddParts(r, x, parts, bias) / width;
    const float scale = 1.0f / std::sqrt(SquaredDistance(x, width, mean) / width + epsilon);
    const float* gamma = norm.gamma.data();
    const float* beta = norm.beta.data();
    for (int i = 0; i < width; ++i) x[i] = (x[i] - mean) * scale * gamma[i] + beta[i];
  }
}

void AddBiasAndActivate(int rows, float* x, std::span<const float> bias, BertActivation activation) {
  switch (activation) {
    case BertActivation::kGelu:
      return AddBiasAndActivateRows<simd::Gelu>(rows, x, bias);
    case BertActivation::kGeluTanh:
      return AddBiasAndActivateRows<simd::GeluTanh>(rows, x, bias);
    case BertActivation::kRelu:
      return AddBiasAndActivateRows<simd::Relu>(rows, x, bias);
  }
}

void Pool(int rows, int width, const float* x, BertPooling pooling, float* out) {
  std::copy_n(x, width, out);
  if (pooling == BertPooling::kCls) return;
  for (int r = 1; r < rows; ++r) {
    const float* row = x + static_cast<size_t>(r) * width;
    if (pooling == BertPooling::kMean) {
      for (int i = 0; i < width; ++i) out[i] += row[i];
    } else {
      for (int i = 0; i < width; ++i) out[i] = std::max(out[i], row[i]);
    }
  }
  if (pooling == BertPooling::kMean) {
    for (int i = 0; i < width; ++i) out[i] /= static_cast<float>(rows);
  }
}

void NormaliseVector(std::span<float> vector) {
  double square = 0;
  for (float value : vector) square += static_cast<double>(value) * value;
  if (square == 0) return;
  const float scale = static_cast<float>(1.0 / std::sqrt(square));
  for (float& value : vector) value *= scale;
}

}  // namespace retro
