// The loops of MultiplyPanels, by instruction set: matrix_loops.cc is compiled once for each. What it defines besides
// is its own, so that no other file is ever linked to a function of instructions that the processor may lack.
#pragma once

#include <cstdint>

#include "generator_service/model/matrix_kernels.h"

namespace retro {

// Floats of scratch for each row of a product.
inline constexpr int64_t kScratchOfRow = 128 + kPanelOutputs;

// begin < end, product.rows > 0.
void MultiplyPanelsBase(MatrixFormat format, const PanelProduct& product, int64_t begin, int64_t end, float* scratch);
void MultiplyPanelsAvx512(MatrixFormat format, const PanelProduct& product, int64_t begin, int64_t end, float* scratch);

}  // namespace retro
