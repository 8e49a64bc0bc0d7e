#include "generator_service/model/packed_matrix.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>

#include "common/base/huge_pages.h"
#include "common/base/simd.h"
#include "generator_service/model/compute_team.h"

namespace retro {
namespace {

using simd::Floats;
using simd::Ints;
using simd::kLanes;

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
using PanelRows = std::array<const float*, kPanelOutputs>;

constexpr int64_t kVectors = kPanelOutputs / kLanes;

// kLanes steps of a panel: [step, outputs].
using Steps = Floats[kLanes][kVectors];

// From step k on; zeros past the end of the rows.
void TakeSteps(const PanelRows& rows, int64_t k, int64_t inputs, Steps& steps) {
  for (int64_t v = 0; v < kVectors; ++v) {
    Floats square[kLanes] = {};
    for (int64_t i = 0; i < kLanes; ++i) {
      const float* from = rows[v * kLanes + i] + k;
      if (k + kLanes <= inputs) {
        square[i] = simd::Load(from);
      } else {
        std::memcpy(&square[i], from, sizeof(float) * std::max<int64_t>(inputs - k, 0));
      }
    }
    simd::Transpose(square);
    for (int64_t i = 0; i < kLanes; ++i) steps[i][v] = square[i];
  }
}

template <typename Element, void (*kStore)(Element*, Floats)>
void PackNumbers(const PanelRows& rows, int64_t inputs, Element* to) {
  Steps steps;
  for (int64_t k = 0; k < inputs; k += kLanes) {
    TakeSteps(rows, k, inputs, steps);
    for (int64_t i = 0; i < std::min<int64_t>(kLanes, inputs - k); ++i, to += kPanelOutputs) {
      for (int64_t v = 0; v < kVectors; ++v) kStore(to + v * kLanes, steps[i][v]);
    }
  }
}

// scales: of the panel's outputs. To the words of matrix_kernels.h.
void PackBytes(const PanelRows& rows, int64_t inputs, int64_t depth, const float* scales, int32_t* to) {
  constexpr int64_t kWords = kLanes / kInt8Depth;  // of an output in the steps taken at once
  Steps steps;
  for (int64_t k = 0; k < depth; k += kLanes) {
    TakeSteps(rows, k, inputs, steps);
    for (int64_t word = 0; word < std::min(kWords, (depth - k) / kInt8Depth); ++word, to += kPanelOutputs) {
      for (int64_t v = 0; v < kVectors; ++v) {
        const Floats scale = simd::Load(scales + v * kLanes);
        Ints bytes = {};
        for (int i = kInt8Depth - 1; i >= 0; --i) {
          const Floats scaled = steps[word * kInt8Depth + i][v] / scale;
          bytes = (bytes << 8) | (simd::Rounded(scale > 0 ? scaled : Floats{}, 1.0F) + kByteOffset);
        }
        simd::StoreInts(to + v * kLanes, bytes);
      }
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
  const std::vector<float> zeros(inputs);
  TakeInTurns(panels_, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) PackPanel(weight, zeros, panel);
  });
}

void PackedMatrix::PackPanel(std::span<const float> weight, std::span<const float> zeros, int64_t panel) {
  PanelRows rows;
  for (int64_t i = 0; i < kPanelOutputs; ++i) {
    const int64_t output = panel * kPanelOutputs + i;
    rows[i] = output < outputs_ ? weight.data() + output * inputs_ : zeros.data();
  }
  switch (format_) {
    case MatrixFormat::kFp32:
      return PackNumbers<float, simd::Store>(rows, inputs_, reinterpret_cast<float*>(Panel(panel)));
    case MatrixFormat::kFp16:
      return PackNumbers<uint16_t, simd::StoreHalves>(rows, inputs_, reinterpret_cast<uint16_t*>(Panel(panel)));
    case MatrixFormat::kInt8:
      break;
  }
  float* scales = scales_.data() + panel * kPanelOutputs;
  for (int64_t i = 0; i < kPanelOutputs; ++i) scales[i] = simd::LargestMagnitude(rows[i], inputs_) / kInt8Largest;
  PackBytes(rows, inputs_, depth_, scales, reinterpret_cast<int32_t*>(Panel(panel)));
}

void PackedMatrix::Multiply(const float* x, int64_t rows, float* y, InstructionSet instructions) const {
  if (rows == 0) return;
  std::optional<ByteRows> bytes;
  if (format_ == MatrixFormat::kInt8) bytes.emplace(x, rows, inputs_);
  const PanelProduct product{.panels = memory_.get(),
                             .panel_bytes = panel_bytes_,
                             .scales = scales_.data(),
                             .depth = depth_,
                             .rows = rows,
                             .x = x,
                             .x_stride = inputs_,
                             .bytes = bytes ? &*bytes : nullptr,
                             .y = y,
                             .y_stride = outputs_,
                             .outputs = outputs_};
  const auto multiply = [&](int64_t begin, int64_t end) { MultiplyPanels(format_, product, begin, end, instructions); };
  if (outputs_ * depth_ * rows < kSharedWork) return multiply(0, panels_);
  // Where weights are unpacked a call also packs the rows: then each worker makes one.
  const bool unpacks = format_ != MatrixFormat::kInt8 && rows > kDirectRowsMax;
  if (unpacks) {
    ShareOut(panels_, multiply);
  } else {
    TakeInTurns(panels_, multiply);
  }
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
      const int64_t byte = (k / kInt8Depth * kPanelOutputs + lane) * kInt8Depth + k % kInt8Depth;
      to[k] = static_cast<float>(static_cast<uint8_t>(panel[byte]) - kByteOffset) * scales_[output];
    }
  }
}

}  // namespace retro
