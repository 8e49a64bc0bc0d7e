// Which rows are nearest to queries by their codes of 4 bits: product quantisation with tables in registers (André,
// Kermarrec, Le Scouarnec: Quicker ADC, arXiv:1812.09162).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace retro {

constexpr size_t kCodeValues = 16;
constexpr size_t kRowsABlock = 32;

// The rows of a list, in whole blocks of 32. A block has 32 bytes for each two codes, laid out as FAISS does (bbs =
// 32): of each byte the low half is a row's and the high half that of the row 16 later; 16 bytes are of the first code,
// for rows 0, 8, 1, 9, 2, ... 15, and 16 of the second.
struct CodeList {
  const uint8_t* blocks = nullptr;
  uint32_t rows = 0;
  uint32_t first_place = 0;  // the number that its first row is found by
};

enum class CodeKernel { kAvx2, kAvx512 };  // the latter with its byte permutations and products (VBMI, VNNI)
std::vector<CodeKernel> CodeKernels();     // that this processor has, the fastest last
CodeKernel FastestCodeKernel();

// Of a block or of a table what belongs to four codes: as much as AVX-512 looks up at once.
struct alignas(64) CodeQuad {
  std::array<uint8_t, 64> bytes;
};

// What each value of a code adds to a row's distance from a query, in bytes. Any thread once made.
class CodeTables {
 public:
  //   codes   of a row; of an odd number blocks have one more, of zeros
  //   tables  [queries, codes, 16]
  CodeTables(size_t codes, std::span<const float> tables);

  size_t codes() const { return codes_; }  // in blocks: an even number
  size_t queries() const { return quads_.size() / quads_of_one(); }
  const uint8_t* Of(size_t query) const { return quads_[query * quads_of_one()].bytes.data(); }

 private:
  size_t quads_of_one() const { return (codes_ + 3) / 4; }

  const size_t codes_;
  std::vector<CodeQuad> quads_;  // [queries, codes and zeros up to a multiple of 4, 16]
};

class SmallestSums;

// One search of the queries of some tables, which outlive it. One thread.
class CodeScan {
 public:
  // Looks for the `most` nearest of each query.
  CodeScan(const CodeTables& tables, size_t most, CodeKernel kernel = FastestCodeKernel());
  ~CodeScan();

  // Compares a list with some queries. `next`: the list that will be looked into after it, whose beginning is fetched
  // meanwhile.
  void Scan(const CodeList& list, std::span<const uint32_t> queries, const CodeList& next);

  // The places of a query's nearest, in no order; -1 fills up where there are fewer.
  //   places  [most]
  void Take(size_t query, std::span<int64_t> places);

 private:
  const CodeTables& tables_;
  const CodeKernel kernel_;
  std::vector<SmallestSums> smallest_;
};

}  // namespace retro
