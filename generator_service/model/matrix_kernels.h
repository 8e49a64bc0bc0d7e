// The inner loops of products with packed weights, on the caller's thread. A weight [out, in] is packed in panels of 16
// outputs, each panel [in, 16]: a step along `in` multiplies one activation with 16 neighbouring weights, and a product
// streams its weights through memory once, in order. Activations and sums are fp32 whatever the weights are.
//
// Every sum of fp32 and fp16 weights is one chain along `in`, however many rows and panels a call takes together: a
// row's result does not depend on what it was computed with, to the bit.
#pragma once

#include <cstdint>

namespace retro {

enum class MatrixFormat { kFp32, kFp16, kInt8 };

inline constexpr int64_t kPanelOutputs = 16;
// An int8 panel is [in / 4, 16] words of 4 weights: `in` is filled up with zeros.
inline constexpr int64_t kInt8Depth = 4;

// One product y = x W^T, or several rows of one.
struct PanelProduct {
  const char* panels = nullptr;   // the first panel
  int64_t panel_bytes = 0;        // from panel to panel
  const float* scales = nullptr;  // int8: of each output, rounded up to whole panels
  int64_t depth = 0;              // in; int8: rounded up
  int64_t rows = 0;
  const float* x = nullptr;  // [rows, depth]
  int64_t x_stride = 0;
  float* y = nullptr;  // [rows, outputs]
  int64_t y_stride = 0;
  int64_t outputs = 0;
};

// The most rows whose products take the weights as they are; more are worth unpacking them for.
inline constexpr int64_t kDirectRowsMax = 8;

// Panels begin ... end - 1 for all rows.
void MultiplyPanels(MatrixFormat format, const PanelProduct& product, int64_t begin, int64_t end);

}  // namespace retro
