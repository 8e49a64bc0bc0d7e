// Codes as lists hold them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "retriever_service/index/code_scan.h"

namespace retro {

// As CodeList says.
//   values  [rows, codes], each below 16
inline std::vector<CodeQuad> Packed(std::span<const uint8_t> values, size_t codes) {
  constexpr size_t kPairBytes = kRowsABlock;
  const size_t rows = values.size() / codes;
  const size_t pairs = (codes + 1) / 2;
  const size_t bytes = (rows + kRowsABlock - 1) / kRowsABlock * pairs * kPairBytes;
  std::vector<CodeQuad> blocks((bytes + sizeof(CodeQuad) - 1) / sizeof(CodeQuad));
  for (size_t row = 0; row < rows; ++row) {
    for (size_t code = 0; code < codes; ++code) {
      const size_t in_half = row % 16;
      const size_t place = in_half < 8 ? 2 * in_half : 2 * (in_half - 8) + 1;
      const size_t at = (row / kRowsABlock * pairs + code / 2) * kPairBytes + code % 2 * 16 + place;
      uint8_t& byte = blocks[at / sizeof(CodeQuad)].bytes[at % sizeof(CodeQuad)];
      byte = static_cast<uint8_t>(byte | values[row * codes + code] << (row % kRowsABlock < 16 ? 0 : 4));
    }
  }
  return blocks;
}

}  // namespace retro
