#include "generator_service/model/packed_matrix.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "common/base/huge_pages.h"
#include "common/base/simd.h"
#include "generator_service/model/compute_team.h"

namespace retro {
namespace {

constexpr float kInt8Largest = 127.0F;
// Products that are done before another core has heard of them.
constexpr int64_t kSharedWork = 1 << 15;

int64_t PanelBytes(MatrixFormat format, int64_t depth) {
  switch (format) {
    case MatrixFormat::kFp32:
      return depth * kPanelOutputs * static_cast<int64_t>(sizeof(float));
    case MatrixFormat::kFp16:
      return depth * kPanelOutputs * static_cast<int64_t>(sizeof(uint16_t));
    case MatrixFormat::kInt8:
      break;
  }
  return depth * kPanelOutputs;
}

// The rows of one panel in the weight; those past the end are zeros.
class PanelRows {
 public:
  PanelRows(std::span<const float> weight, int64_t outputs, int64_t inputs, int64_t panel) : zeros_(inputs) {
    for (int64_t i = 0; i < kPanelOutputs; ++i) {
      const int64_t output = panel * kPanelOutputs + i;
      rows_[i] = output < outputs ? weight.data() + output * inputs : zeros_.data();
    }
  }
  const float* operator[](int64_t i) const { return rows_[i]; }

 private:
  std::vector<float> zeros_;
  std::array<const float*, kPanelOutputs> rows_ = {};
};

float LargestMagnitude(const float* row, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(row[i]));
  return largest;
}

void PackFloats(const PanelRows& rows, int64_t inputs, float* to) {
  for (int64_t k = 0; k < inputs; ++k) {
    for (int64_t i = 0; i < kPanelOutputs; ++i) *to++ = rows[i][k];
  }
}

void PackHalves(const PanelRows& rows, int64_t inputs, uint16_t* to) {
  for (int64_t k = 0; k < inputs; ++k) {
    float step[kPanelOutputs];
    for (int64_t i = 0; i < kPanelOutputs; ++i) step[i] = rows[i][k];
    for (int64_t i = 0; i < kPanelOutputs; i += simd::kLanes) simd::StoreHalves(to + i, simd::Load(step + i));
    to += kPanelOutputs;
  }
}

// See kByteMasks in matrix_kernels.cc: bytes but the last of a word are stored with 128 added.
void PackBytes(const PanelRows& rows, int64_t inputs, int64_t depth, const float* scales, uint8_t* to) {
  for (int64_t i = 0; i < kPanelOutputs; ++i) {
    for (int64_t k = 0; k < depth; ++k) {
      const float scaled = k < inputs && scales[i] > 0 ? rows[i][k] / scales[i] : 0.0F;
      const int64_t byte = k % kInt8Depth;
      const int offset = byte == kInt8Depth - 1 ? 0 : 128;
      to[(k / kInt8Depth * kPanelOutputs + i) * kInt8Depth + byte] =
          static_cast<uint8_t>(static_cast<int>(std::lrint(scaled)) + offset);
    }
  }
}

}  // namespace

void PackedMatrix::Free::operator()(char* memory) const { std::free(memory); }

PackedMatrix::PackedMatrix(std::span<const float> weight, int64_t outputs, int64_t inputs, MatrixFormat format)
    : format_(format),
      outputs_(outputs),
      inputs_(inputs),
      depth_(format == MatrixFormat::kInt8 ? (inputs + kInt8Depth - 1) / kInt8Depth * kInt8Depth : inputs),
      panels_((outputs + kPanelOutputs - 1) / kPanelOutputs),
      panel_bytes_(PanelBytes(format, depth_)),
      bytes_(static_cast<size_t>(panels_ * panel_bytes_)) {
  memory_.reset(static_cast<char*>(AllocateInHugePages(bytes_)));
  if (memory_ == nullptr) throw std::bad_alloc();
  if (format == MatrixFormat::kInt8) scales_.resize(panels_ * kPanelOutputs);
  for (int64_t panel = 0; panel < panels_; ++panel) PackPanel(weight, panel);
}

void PackedMatrix::PackPanel(std::span<const float> weight, int64_t panel) {
  const PanelRows rows(weight, outputs_, inputs_, panel);
  switch (format_) {
    case MatrixFormat::kFp32:
      return PackFloats(rows, inputs_, reinterpret_cast<float*>(Panel(panel)));
    case MatrixFormat::kFp16:
      return PackHalves(rows, inputs_, reinterpret_cast<uint16_t*>(Panel(panel)));
    case MatrixFormat::kInt8:
      break;
  }
  float* scales = scales_.data() + panel * kPanelOutputs;
  for (int64_t i = 0; i < kPanelOutputs; ++i) scales[i] = LargestMagnitude(rows[i], inputs_) / kInt8Largest;
  PackBytes(rows, inputs_, depth_, scales, reinterpret_cast<uint8_t*>(Panel(panel)));
}

void PackedMatrix::Multiply(const float* x, int64_t rows, float* y) const {
  if (rows == 0) return;      // the kernels' last tile has at least one
  std::vector<float> filled;  // x with zeros up to depth_
  if (depth_ != inputs_) {
    filled.resize(rows * depth_);
    for (int64_t r = 0; r < rows; ++r) std::copy_n(x + r * inputs_, inputs_, filled.data() + r * depth_);
    x = filled.data();
  }
  const PanelProduct product{.panels = memory_.get(),
                             .panel_bytes = panel_bytes_,
                             .scales = scales_.data(),
                             .depth = depth_,
                             .rows = rows,
                             .x = x,
                             .x_stride = depth_,
                             .y = y,
                             .y_stride = outputs_,
                             .outputs = outputs_};
  if (outputs_ * depth_ * rows < kSharedWork) return MultiplyPanels(format_, product, 0, panels_);
  ShareOut(panels_, [&](int64_t begin, int64_t end) { MultiplyPanels(format_, product, begin, end); });
}

void PackedMatrix::ReadRow(int64_t output, float* to) const {
  const int64_t lane = output % kPanelOutputs;
  const char* panel = Panel(output / kPanelOutputs);
  for (int64_t k = 0; k < inputs_; ++k) {
    const int64_t at = k * kPanelOutputs + lane;
    if (format_ == MatrixFormat::kFp32) {
      to[k] = reinterpret_cast<const float*>(panel)[at];
    } else if (format_ == MatrixFormat::kFp16) {
      to[k] = simd::FromHalf(reinterpret_cast<const uint16_t*>(panel)[at]);
    } else {
      const int64_t byte = k % kInt8Depth;
      const auto stored = static_cast<uint8_t>(panel[(k / kInt8Depth * kPanelOutputs + lane) * kInt8Depth + byte]);
      const int value = byte == kInt8Depth - 1 ? static_cast<int8_t>(stored) : stored - 128;
      to[k] = static_cast<float>(value) * scales_[output];
    }
  }
}

}  // namespace retro
