// The inner loops of products with packed weights, on the caller's thread. A weight [out, in] is packed in panels of 32
// outputs, each panel [in, 32]: a step along `in` multiplies one activation with 32 neighbouring weights, whole lines
// of memory, and a product streams its weights through once, as one stream from the first byte to the last: several
// beside each other cost a tenth of the memory's speed.
//
// Every sum of fp32 and fp16 weights is one chain of fp32 along `in`, however many rows and panels a call takes
// together; the sums of int8 weights are whole numbers, which are exact. A row's result does not depend on what it was
// computed with nor on the processor's instructions, to the bit.
#pragma once

#include <cstdint>
#include <vector>

namespace retro {

enum class MatrixFormat { kFp32, kFp16, kInt8 };

inline constexpr int64_t kPanelOutputs = 32;
// The most rows whose products take fp32 and fp16 weights as they are; more are worth unpacking them for. int8 weights
// are always taken as they are.
inline constexpr int64_t kDirectRowsMax = 8;
// An int8 panel is [in / 4, 32] words of 4 weights, each plus 128: `in` is filled up with zeros.
inline constexpr int64_t kInt8Depth = 4;
inline constexpr int32_t kByteOffset = 128;

// Rows of activations for int8 weights: x = scale * (128 high + low), bytes of -64 ... 63. The rounding is far below
// that of the weights, and no pair of products with a byte of weights leaves 16 bits.
struct ByteRows {
  static constexpr int64_t kParts = 2;  // high, low
  static constexpr int32_t kHighUnit = 128;
  static constexpr float kLargest = 8127;  // 128 * 63 + 63

  ByteRows(const float* x /* [rows, inputs] */, int64_t rows, int64_t inputs);

  int64_t stride;               // inputs, filled up with zeros
  std::vector<int8_t> bytes;    // [rows, part, stride]
  std::vector<int32_t> excess;  // [rows, part]: what the weights' offset adds to a sum
  std::vector<float> scales;    // [rows]
};

// One product y = x W^T, or several rows of one.
struct PanelProduct {
  const char* panels = nullptr;   // the first panel
  int64_t panel_bytes = 0;        // from panel to panel
  const float* scales = nullptr;  // int8: of each output, rounded up to whole panels
  int64_t depth = 0;              // in; int8: rounded up
  int64_t rows = 0;
  const float* x = nullptr;  // [rows, depth]; int8: null
  int64_t x_stride = 0;
  const ByteRows* bytes = nullptr;  // int8
  float* y = nullptr;               // [rows, outputs]
  int64_t y_stride = 0;
  int64_t outputs = 0;
};

enum class InstructionSet {
  kBase,    // what the build is for: AVX2
  kAvx512,  // with VNNI
};
// The most that this processor has.
InstructionSet BestInstructions();

// Panels begin ... end - 1 for all rows, by instructions that the processor must have.
void MultiplyPanels(MatrixFormat format, const PanelProduct& product, int64_t begin, int64_t end,
                    InstructionSet instructions);

}  // namespace retro
