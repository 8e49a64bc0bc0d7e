#include "generator_service/model/matrix_kernels.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "common/base/simd.h"

namespace retro {
namespace {

using simd::Floats;
using simd::Ints;
using simd::kLanes;

constexpr int64_t kHalves = 2;  // vectors of a panel's width
static_assert(kPanelOutputs == kHalves * kLanes);

// Rows of a tile whose sums, with two vectors of weights and one activation, fill AVX2's sixteen registers.
constexpr int kTileRows = 6;
// Steps along `in` whose unpacked weights stay in the first cache beside the activations.
constexpr int64_t kUnpackedDepth = 256;

// Words of an int8 panel: byte i is the weight of step 4 n + i, plus 128 but for the last, whose sign bit is the
// word's. Masked and converted, each is the weight times 2^(8 i): the activations are scaled down by as much.
constexpr std::array<int32_t, kInt8Depth> kByteMasks = {0xFF, 0xFF00, 0xFF0000, static_cast<int32_t>(0xFF000000)};
constexpr std::array<float, kInt8Depth> kByteScales = {1.0F, 0x1p-8F, 0x1p-16F, 0x1p-24F};
constexpr float kByteOffset = 128.0F;

struct Fp32 {
  using Element = float;
  static Floats Load(const Element* from) { return simd::Load(from); }
};
struct Fp16 {
  using Element = uint16_t;
  static Floats Load(const Element* from) { return simd::LoadHalves(from); }
};

template <int kRows, int kPanels>
using Sums = Floats[kRows][kPanels][kHalves];

template <int kRows, int kPanels>
void StoreSums(const PanelProduct& p, int64_t row, int64_t panel, const Sums<kRows, kPanels>& sums) {
  for (int r = 0; r < kRows; ++r) {
    for (int q = 0; q < kPanels; ++q) {
      const int64_t first = (panel + q) * kPanelOutputs;
      float* y = p.y + (row + r) * p.y_stride + first;
      if (first + kPanelOutputs <= p.outputs) {
        simd::Store(y, sums[r][q][0]);
        simd::Store(y + kLanes, sums[r][q][1]);
      } else {
        std::memcpy(y, &sums[r][q], sizeof(float) * (p.outputs - first));
      }
    }
  }
}

// kRows rows by kPanels panels, straight from the packed weights.
template <typename Format, int kRows, int kPanels>
void MultiplyDirect(const PanelProduct& p, int64_t row, int64_t panel) {
  using Element = typename Format::Element;
  const auto* weights = reinterpret_cast<const Element*>(p.panels + panel * p.panel_bytes);
  const int64_t stride = p.panel_bytes / static_cast<int64_t>(sizeof(Element));
  const float* x = p.x + row * p.x_stride;
  Sums<kRows, kPanels> sums = {};
  for (int64_t k = 0; k < p.depth; ++k) {
    for (int q = 0; q < kPanels; ++q) {
      const Element* step = weights + q * stride + k * kPanelOutputs;
      const Floats left = Format::Load(step);
      const Floats right = Format::Load(step + kLanes);
      for (int r = 0; r < kRows; ++r) {
        const Floats factor = simd::Splat(x[r * p.x_stride + k]);
        sums[r][q][0] = simd::MultiplyAdd(factor, left, sums[r][q][0]);
        sums[r][q][1] = simd::MultiplyAdd(factor, right, sums[r][q][1]);
      }
    }
  }
  StoreSums<kRows, kPanels>(p, row, panel, sums);
}

// Activations for the bytes of a word, and what the offset of the first three adds to every sum.
struct ByteActivations {
  const float* x;       // [rows, depth], each times its byte's scale
  const float* excess;  // [rows]
};

template <int kRows, int kPanels>
void MultiplyBytes(const PanelProduct& p, const ByteActivations& activations, int64_t row, int64_t panel) {
  const auto* weights = reinterpret_cast<const int32_t*>(p.panels + panel * p.panel_bytes);
  const int64_t stride = p.panel_bytes / static_cast<int64_t>(sizeof(int32_t));
  const float* x = activations.x + row * p.depth;
  Sums<kRows, kPanels> sums = {};
  for (int64_t k = 0; k < p.depth; k += kInt8Depth) {
    for (int q = 0; q < kPanels; ++q) {
      const int32_t* step = weights + q * stride + k / kInt8Depth * kPanelOutputs;
      const Ints left = simd::LoadInts(step);
      const Ints right = simd::LoadInts(step + kLanes);
      for (int i = 0; i < kInt8Depth; ++i) {
        const Floats left_floats = simd::ToFloats(left & kByteMasks[i]);
        const Floats right_floats = simd::ToFloats(right & kByteMasks[i]);
        for (int r = 0; r < kRows; ++r) {
          const Floats factor = simd::Splat(x[r * p.depth + k + i]);
          sums[r][q][0] = simd::MultiplyAdd(factor, left_floats, sums[r][q][0]);
          sums[r][q][1] = simd::MultiplyAdd(factor, right_floats, sums[r][q][1]);
        }
      }
    }
  }
  for (int q = 0; q < kPanels; ++q) {
    for (int64_t h = 0; h < kHalves; ++h) {
      const Floats scale = simd::Load(p.scales + (panel + q) * kPanelOutputs + h * kLanes);
      for (int r = 0; r < kRows; ++r) sums[r][q][h] = (sums[r][q][h] - activations.excess[row + r]) * scale;
    }
  }
  StoreSums<kRows, kPanels>(p, row, panel, sums);
}

// `tile.Run<rows, panels>(panel)` over the panels. The fewer rows, the more panels are taken at once, so that there are
// chains of sums enough to hide a multiplication's latency.
template <int kRows, int kPanels, typename Tile>
void OverPanels(const Tile& tile, int64_t begin, int64_t end) {
  int64_t panel = begin;
  for (; panel + kPanels <= end; panel += kPanels) tile.template Run<kRows, kPanels>(panel);
  for (; panel < end; ++panel) tile.template Run<kRows, 1>(panel);
}

// The most rows whose sums stay in registers.
constexpr int64_t kDirectTileRows = 4;

template <typename Tile>
void OverRowsAndPanels(const Tile& tile, int64_t rows, int64_t begin, int64_t end) {
  if (rows > kDirectTileRows) {  // in turns, panel by panel, which comes from memory once
    for (int64_t panel = begin; panel < end; ++panel) {
      OverRowsAndPanels(tile, rows / 2, panel, panel + 1);
      OverRowsAndPanels(tile.From(rows / 2), rows - rows / 2, panel, panel + 1);
    }
    return;
  }
  switch (rows) {
    case 1:
      return OverPanels<1, 4>(tile, begin, end);
    case 2:
      return OverPanels<2, 2>(tile, begin, end);
    case 3:
      return OverPanels<3, 1>(tile, begin, end);
    default:
      return OverPanels<4, 1>(tile, begin, end);
  }
}

template <typename Format>
struct DirectTile {
  const PanelProduct& product;
  int64_t row = 0;
  DirectTile From(int64_t rows) const { return {product, row + rows}; }
  template <int kRows, int kPanels>
  void Run(int64_t panel) const {
    MultiplyDirect<Format, kRows, kPanels>(product, row, panel);
  }
};

struct ByteTile {
  const PanelProduct& product;
  const ByteActivations& activations;
  int64_t row = 0;
  ByteTile From(int64_t rows) const { return {product, activations, row + rows}; }
  template <int kRows, int kPanels>
  void Run(int64_t panel) const {
    MultiplyBytes<kRows, kPanels>(product, activations, row, panel);
  }
};

void MultiplyBytesDirect(const PanelProduct& p, int64_t begin, int64_t end) {
  thread_local std::vector<float> scaled;
  scaled.resize(p.rows * p.depth);
  float excess[kDirectRowsMax] = {};
  for (int64_t r = 0; r < p.rows; ++r) {
    const float* x = p.x + r * p.x_stride;
    float* to = scaled.data() + r * p.depth;
    for (int64_t k = 0; k < p.depth; k += kInt8Depth) {
      for (int i = 0; i < kInt8Depth; ++i) to[k + i] = x[k + i] * kByteScales[i];
      excess[r] += kByteOffset * (x[k] + x[k + 1] + x[k + 2]);
    }
  }
  const ByteActivations activations{scaled.data(), excess};
  OverRowsAndPanels(ByteTile{p, activations}, p.rows, begin, end);
}

// Steps begin ... begin + count - 1 of a panel as fp32: [count, 16].
template <typename Format>
void Unpack(const PanelProduct& p, int64_t panel, int64_t begin, int64_t count, float* to) {
  const auto* weights = reinterpret_cast<const typename Format::Element*>(p.panels + panel * p.panel_bytes);
  weights += begin * kPanelOutputs;
  for (int64_t i = 0; i < count * kPanelOutputs; i += kLanes) simd::Store(to + i, Format::Load(weights + i));
}

void UnpackBytes(const PanelProduct& p, int64_t panel, int64_t begin, int64_t count, float* to) {
  const auto* words = reinterpret_cast<const int32_t*>(p.panels + panel * p.panel_bytes);
  words += begin / kInt8Depth * kPanelOutputs;
  const float* scales = p.scales + panel * kPanelOutputs;
  for (int64_t k = 0; k < count; k += kInt8Depth, words += kPanelOutputs) {
    for (int64_t h = 0; h < kHalves; ++h) {
      const Ints word = simd::LoadInts(words + h * kLanes);
      const Floats scale = simd::Load(scales + h * kLanes);
      for (int i = 0; i < kInt8Depth; ++i, to += kPanelOutputs) {
        const float offset = i == kInt8Depth - 1 ? 0.0F : kByteOffset;
        simd::Store(to + h * kLanes, (simd::ToFloats(word & kByteMasks[i]) * kByteScales[i] - offset) * scale);
      }
      to -= kInt8Depth * kPanelOutputs;
    }
    to += kInt8Depth * kPanelOutputs;
  }
}

// Steps of one panel for a tile of kRows rows, x [count, kRows]; the sums so far are in y, or begin with 0.
template <int kRows>
void MultiplyUnpacked(int64_t count, const float* weights, const float* x, float* y, int64_t y_stride, bool begins) {
  Floats sums[kRows][kHalves] = {};
  for (int r = 0; r < kRows && !begins; ++r) {
    sums[r][0] = simd::Load(y + r * y_stride);
    sums[r][1] = simd::Load(y + r * y_stride + kLanes);
  }
  for (int64_t k = 0; k < count; ++k) {
    const Floats left = simd::Load(weights + k * kPanelOutputs);
    const Floats right = simd::Load(weights + k * kPanelOutputs + kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Floats factor = simd::Splat(x[k * kRows + r]);
      sums[r][0] = simd::MultiplyAdd(factor, left, sums[r][0]);
      sums[r][1] = simd::MultiplyAdd(factor, right, sums[r][1]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    simd::Store(y + r * y_stride, sums[r][0]);
    simd::Store(y + r * y_stride + kLanes, sums[r][1]);
  }
}

using UnpackedKernel = void (*)(int64_t, const float*, const float*, float*, int64_t, bool);
constexpr std::array<UnpackedKernel, kTileRows + 1> kUnpackedKernels = {nullptr,
                                                                        MultiplyUnpacked<1>,
                                                                        MultiplyUnpacked<2>,
                                                                        MultiplyUnpacked<3>,
                                                                        MultiplyUnpacked<4>,
                                                                        MultiplyUnpacked<5>,
                                                                        MultiplyUnpacked<6>};

// Tiles of rows, as even as they come.
int64_t TileCount(int64_t rows) { return (rows + kTileRows - 1) / kTileRows; }
int64_t TileBegin(int64_t rows, int64_t tile) { return rows * tile / TileCount(rows); }

// Steps k ... k + count - 1 of all activations, tile after tile as the kernels read them: [tile][count, rows of it].
void PackSteps(const PanelProduct& p, int64_t k, int64_t count, float* to) {
  for (int64_t tile = 0; tile < TileCount(p.rows); ++tile) {
    const int64_t begin = TileBegin(p.rows, tile);
    const int64_t rows = TileBegin(p.rows, tile + 1) - begin;
    for (int64_t r = 0; r < rows; ++r) {
      const float* x = p.x + (begin + r) * p.x_stride + k;
      for (int64_t i = 0; i < count; ++i) to[i * rows + r] = x[i];
    }
    to += count * rows;
  }
}

// Steps k ... k + count - 1 of all rows by one panel, into y [rows, stride]. x: as PackSteps leaves it.
void MultiplySteps(MatrixFormat format, const PanelProduct& p, int64_t panel, int64_t k, int64_t count, const float* x,
                   float* y, int64_t y_stride) {
  alignas(32) float weights[kUnpackedDepth * kPanelOutputs];
  switch (format) {
    case MatrixFormat::kFp32:
      Unpack<Fp32>(p, panel, k, count, weights);
      break;
    case MatrixFormat::kFp16:
      Unpack<Fp16>(p, panel, k, count, weights);
      break;
    case MatrixFormat::kInt8:
      UnpackBytes(p, panel, k, count, weights);
      break;
  }
  for (int64_t tile = 0; tile < TileCount(p.rows); ++tile) {
    const int64_t row = TileBegin(p.rows, tile);
    const int64_t rows = TileBegin(p.rows, tile + 1) - row;
    kUnpackedKernels[rows](count, weights, x + row * count, y + row * y_stride, y_stride, k == 0);
  }
}

// Steps outside, panels inside: the activations of a stretch of steps stay in the second cache for all panels.
void MultiplyPanelsUnpacked(MatrixFormat format, const PanelProduct& p, int64_t begin, int64_t end) {
  thread_local std::vector<float> steps;
  steps.resize(p.rows * kUnpackedDepth);
  const bool cut = end * kPanelOutputs > p.outputs;  // the last panel is wider than y has room for
  std::vector<float> last(cut ? p.rows * kPanelOutputs : 0);
  for (int64_t k = 0; k < p.depth; k += kUnpackedDepth) {
    const int64_t count = std::min(kUnpackedDepth, p.depth - k);
    PackSteps(p, k, count, steps.data());
    for (int64_t panel = begin; panel < (cut ? end - 1 : end); ++panel) {
      MultiplySteps(format, p, panel, k, count, steps.data(), p.y + panel * kPanelOutputs, p.y_stride);
    }
    if (cut) MultiplySteps(format, p, end - 1, k, count, steps.data(), last.data(), kPanelOutputs);
  }
  if (!cut) return;
  const int64_t first = (end - 1) * kPanelOutputs;
  for (int64_t r = 0; r < p.rows; ++r) {
    std::copy_n(last.data() + r * kPanelOutputs, p.outputs - first, p.y + r * p.y_stride + first);
  }
}

}  // namespace

void MultiplyPanels(MatrixFormat format, const PanelProduct& product, int64_t begin, int64_t end) {
  if (begin >= end) return;
  if (product.rows > kDirectRowsMax) return MultiplyPanelsUnpacked(format, product, begin, end);
  switch (format) {
    case MatrixFormat::kFp32:
      return OverRowsAndPanels(DirectTile<Fp32>{product}, product.rows, begin, end);
    case MatrixFormat::kFp16:
      return OverRowsAndPanels(DirectTile<Fp16>{product}, product.rows, begin, end);
    case MatrixFormat::kInt8:
      return MultiplyBytesDirect(product, begin, end);
  }
}

}  // namespace retro
