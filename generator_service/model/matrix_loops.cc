#include "generator_service/model/matrix_loops.h"

#include <cstring>

#include "common/base/simd.h"

namespace retro {
namespace {

using simd::Floats;
using simd::Ints;
using simd::kLanes;

constexpr int kVectors = kPanelOutputs / kLanes;  // of a panel's width
static_assert(kPanelOutputs % kLanes == 0);

// Sums that stay in registers beside the weights and activations that they are made from.
constexpr int kSums = kLanes == 16 ? 24 : 12;

// Steps along `in` whose unpacked weights stay in the first cache beside the activations.
constexpr int64_t kUnpackedDepth = 128;
static_assert(kUnpackedDepth + kPanelOutputs == kScratchOfRow);
constexpr int kUnpackedRows = kSums / kVectors;

constexpr int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }

struct Fp32 {
  using Element = float;
  static Floats Load(const Element* from) { return simd::Load(from); }
};
struct Fp16 {
  using Element = uint16_t;
  static Floats Load(const Element* from) { return simd::LoadHalves(from); }
};

template <int kRows, int kWidth>
using Sums = Floats[kRows][kWidth];

// From output `first` on.
template <int kRows, int kWidth>
void StoreSums(const PanelProduct& p, int64_t row, int64_t first, const Sums<kRows, kWidth>& sums) {
  for (int r = 0; r < kRows; ++r) {
    for (int64_t v = 0; v < kWidth; ++v) {
      const int64_t output = first + v * kLanes;
      float* y = p.y + (row + r) * p.y_stride + output;
      if (output + kLanes <= p.outputs) {
        simd::Store(y, sums[r][v]);
      } else if (output < p.outputs) {
        std::memcpy(y, &sums[r][v], sizeof(float) * (p.outputs - output));
      }
    }
  }
}

// kRows rows by kWidth vectors of a panel from `vector` on, straight from the packed weights. A function of its own: as
// a part of its caller GCC 12 keeps a sum in memory, and that makes it three times as slow.
template <typename Format, int kRows, int kWidth>
[[gnu::noinline]] void MultiplyTile(const PanelProduct& p, int64_t row, int64_t panel, int64_t vector) {
  using Element = typename Format::Element;
  const auto* weights = reinterpret_cast<const Element*>(p.panels + panel * p.panel_bytes) + vector * kLanes;
  const float* x = p.x + row * p.x_stride;
  Sums<kRows, kWidth> sums = {};
  for (int64_t k = 0; k < p.depth; ++k, weights += kPanelOutputs) {
    for (int64_t v = 0; v < kWidth; ++v) {
      const Floats weight = Format::Load(weights + v * kLanes);
      for (int r = 0; r < kRows; ++r) {
        sums[r][v] = simd::MultiplyAdd(simd::Splat(x[r * p.x_stride + k]), weight, sums[r][v]);
      }
    }
  }
  StoreSums<kRows, kWidth>(p, row, panel * kPanelOutputs + vector * kLanes, sums);
}

int32_t FourBytes(const int8_t* from) {
  int32_t bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return bytes;
}

template <int kRows, int kWidth>
[[gnu::noinline]] void MultiplyByteTile(const PanelProduct& p, int64_t row, int64_t panel, int64_t vector) {
  constexpr int kParts = ByteRows::kParts;
  const auto* weights = reinterpret_cast<const int32_t*>(p.panels + panel * p.panel_bytes) + vector * kLanes;
  const int64_t stride = p.bytes->stride;
  const int8_t* x = p.bytes->bytes.data() + row * kParts * stride;
  Ints sums[kRows][kParts][kWidth] = {};
  for (int64_t k = 0; k < p.depth; k += kInt8Depth, weights += kPanelOutputs) {
    for (int64_t v = 0; v < kWidth; ++v) {
      const Ints weight = simd::LoadInts(weights + v * kLanes);
      for (int r = 0; r < kRows; ++r) {
        for (int part = 0; part < kParts; ++part) {
          const Ints factors = simd::SplatInt(FourBytes(x + (r * kParts + part) * stride + k));
          sums[r][part][v] = simd::AddByteProducts(sums[r][part][v], weight, factors);
        }
      }
    }
  }
  const int64_t first = panel * kPanelOutputs + vector * kLanes;
  Sums<kRows, kWidth> scaled;
  for (int r = 0; r < kRows; ++r) {
    const int32_t* excess = p.bytes->excess.data() + (row + r) * kParts;
    for (int64_t v = 0; v < kWidth; ++v) {
      const Floats high = simd::ToFloats(sums[r][0][v] - excess[0]) * static_cast<float>(ByteRows::kHighUnit);
      const Floats low = simd::ToFloats(sums[r][1][v] - excess[1]);
      const Floats scale = simd::Load(p.scales + first + v * kLanes);
      scaled[r][v] = (high + low) * (scale * p.bytes->scales[row + r]);
    }
  }
  StoreSums<kRows, kWidth>(p, row, first, scaled);
}

// Kinds of tiles: kRows rows by kWidth vectors, kParts sums for each of their outputs.
template <typename Format>
struct FloatTile {
  static constexpr int kParts = 1;
  template <int kRows, int kWidth>
  static void Run(const PanelProduct& p, int64_t row, int64_t panel, int64_t vector) {
    MultiplyTile<Format, kRows, kWidth>(p, row, panel, vector);
  }
};
struct ByteTile {
  static constexpr int kParts = ByteRows::kParts;
  template <int kRows, int kWidth>
  static void Run(const PanelProduct& p, int64_t row, int64_t panel, int64_t vector) {
    MultiplyByteTile<kRows, kWidth>(p, row, panel, vector);
  }
};

// The most rows of a tile.
template <typename Tile>
constexpr int kTileRows = (kLanes == 16 ? 8 : 4) / Tile::kParts;

template <typename Tile, int kRows>
void MultiplyRows(const PanelProduct& p, int64_t row, int64_t rows, int64_t panel) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return MultiplyRows<Tile, kRows - 1>(p, row, rows, panel);
  }
  constexpr int kWidth = kRows * Tile::kParts * kVectors <= kSums ? kVectors : kVectors / 2;
  static_assert(kRows * Tile::kParts * kWidth <= kSums);
  for (int64_t vector = 0; vector < kVectors; vector += kWidth)
    Tile::template Run<kRows, kWidth>(p, row, panel, vector);
}

// Tiles of at most `most` rows, as even as they come.
int64_t TileCount(int64_t rows, int64_t most) { return (rows + most - 1) / most; }
int64_t TileBegin(int64_t rows, int64_t most, int64_t tile) { return rows * tile / TileCount(rows, most); }

// Straight from the packed weights, which come from memory once: the tiles of rows take turns at a panel.
template <typename Tile>
void MultiplyDirect(const PanelProduct& p, int64_t begin, int64_t end) {
  constexpr int kMost = kTileRows<Tile>;
  for (int64_t panel = begin; panel < end; ++panel) {
    for (int64_t tile = 0; tile < TileCount(p.rows, kMost); ++tile) {
      const int64_t row = TileBegin(p.rows, kMost, tile);
      MultiplyRows<Tile, kMost>(p, row, TileBegin(p.rows, kMost, tile + 1) - row, panel);
    }
  }
}

// Steps begin ... begin + count - 1 of a panel as fp32: [count, 32].
template <typename Format>
void Unpack(const PanelProduct& p, int64_t panel, int64_t begin, int64_t count, float* to) {
  const auto* weights = reinterpret_cast<const typename Format::Element*>(p.panels + panel * p.panel_bytes);
  weights += begin * kPanelOutputs;
  for (int64_t i = 0; i < count * kPanelOutputs; i += kLanes) simd::Store(to + i, Format::Load(weights + i));
}

// Steps of a panel, weights [count, 32], for a tile of kRows rows; x: [count, kRows]. y: [kRows, 32], the sums so far,
// which begin with 0.
template <int kRows>
void MultiplyUnpackedTile(int64_t count, const float* weights, const float* x, float* y, int64_t y_stride,
                          bool begins) {
  Sums<kRows, kVectors> sums = {};
  for (int r = 0; r < kRows && !begins; ++r) {
    for (int64_t v = 0; v < kVectors; ++v) sums[r][v] = simd::Load(y + r * y_stride + v * kLanes);
  }
  for (int64_t k = 0; k < count; ++k) {
    for (int64_t v = 0; v < kVectors; ++v) {
      const Floats weight = simd::Load(weights + k * kPanelOutputs + v * kLanes);
      for (int r = 0; r < kRows; ++r) {
        sums[r][v] = simd::MultiplyAdd(simd::Splat(x[k * kRows + r]), weight, sums[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int64_t v = 0; v < kVectors; ++v) simd::Store(y + r * y_stride + v * kLanes, sums[r][v]);
  }
}

template <int kRows>
void MultiplyUnpacked(int64_t rows, int64_t count, const float* weights, const float* x, float* y, int64_t y_stride,
                      bool begins) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return MultiplyUnpacked<kRows - 1>(rows, count, weights, x, y, y_stride, begins);
  }
  MultiplyUnpackedTile<kRows>(count, weights, x, y, y_stride, begins);
}

// Steps k ... k + count - 1 of all activations, tile after tile as the kernels read them: [tile][count, rows of it].
void PackSteps(const PanelProduct& p, int64_t k, int64_t count, float* to) {
  for (int64_t tile = 0; tile < TileCount(p.rows, kUnpackedRows); ++tile) {
    const int64_t begin = TileBegin(p.rows, kUnpackedRows, tile);
    const int64_t rows = TileBegin(p.rows, kUnpackedRows, tile + 1) - begin;
    for (int64_t r = 0; r < rows; ++r) {
      const float* x = p.x + (begin + r) * p.x_stride + k;
      for (int64_t i = 0; i < count; ++i) to[i * rows + r] = x[i];
    }
    to += count * rows;
  }
}

// Steps k ... k + count - 1 of all rows by one panel, into y [rows, stride]. x: as PackSteps leaves it.
template <typename Format>
void MultiplySteps(const PanelProduct& p, int64_t panel, int64_t k, int64_t count, const float* x, float* y,
                   int64_t y_stride) {
  alignas(64) float weights[kUnpackedDepth * kPanelOutputs];
  Unpack<Format>(p, panel, k, count, weights);
  for (int64_t tile = 0; tile < TileCount(p.rows, kUnpackedRows); ++tile) {
    const int64_t row = TileBegin(p.rows, kUnpackedRows, tile);
    const int64_t rows = TileBegin(p.rows, kUnpackedRows, tile + 1) - row;
    MultiplyUnpacked<kUnpackedRows>(rows, count, weights, x + row * count, y + row * y_stride, y_stride, k == 0);
  }
}

// Steps outside, panels inside: the activations of a stretch of steps stay in the second cache for all panels.
// scratch: [rows, kUnpackedDepth], then [rows, 32].
template <typename Format>
void MultiplyUnpackedPanels(const PanelProduct& p, int64_t begin, int64_t end, float* scratch) {
  const bool cut = end * kPanelOutputs > p.outputs;  // the last panel is wider than y has room for
  const int64_t whole = cut ? end - 1 : end;
  float* last = scratch + p.rows * kUnpackedDepth;
  for (int64_t k = 0; k < p.depth; k += kUnpackedDepth) {
    const int64_t count = Smaller(kUnpackedDepth, p.depth - k);
    PackSteps(p, k, count, scratch);
    for (int64_t panel = begin; panel < whole; ++panel) {
      MultiplySteps<Format>(p, panel, k, count, scratch, p.y + panel * kPanelOutputs, p.y_stride);
    }
    if (cut) MultiplySteps<Format>(p, whole, k, count, scratch, last, kPanelOutputs);
  }
  for (int64_t r = 0; cut && r < p.rows; ++r) {
    float* y = p.y + r * p.y_stride + whole * kPanelOutputs;
    std::memcpy(y, last + r * kPanelOutputs, sizeof(float) * (p.outputs - whole * kPanelOutputs));
  }
}

template <typename Format>
void MultiplyFloats(const PanelProduct& p, int64_t begin, int64_t end, float* scratch) {
  if (p.rows <= kDirectRowsMax) return MultiplyDirect<FloatTile<Format>>(p, begin, end);
  MultiplyUnpackedPanels<Format>(p, begin, end, scratch);
}

void Multiply(MatrixFormat format, const PanelProduct& product, int64_t begin, int64_t end, float* scratch) {
  switch (format) {
    case MatrixFormat::kFp32:
      return MultiplyFloats<Fp32>(product, begin, end, scratch);
    case MatrixFormat::kFp16:
      return MultiplyFloats<Fp16>(product, begin, end, scratch);
    case MatrixFormat::kInt8:
      return MultiplyDirect<ByteTile>(product, begin, end);
  }
}

}  // namespace

#if defined(RETRO_SIMD_AVX512)
void MultiplyPanelsAvx512(MatrixFormat format, const PanelProduct& product, int64_t begin, int64_t end,
                          float* scratch) {
  Multiply(format, product, begin, end, scratch);
}
#else
void MultiplyPanelsBase(MatrixFormat format, const PanelProduct& product, int64_t begin, int64_t end, float* scratch) {
  Multiply(format, product, begin, end, scratch);
}
#endif

}  // namespace retro
