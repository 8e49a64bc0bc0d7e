// What is chosen from the number of vectors, so that nobody has to: how a segment is built, and how much of it a search
// of a given effort looks at. Every rule is stated here.
#pragma once

#include <cstdint>
#include <string>

namespace retro {

enum class SegmentKind {
  kExact,  // no lists: every vector of the mapped file is compared
  kSq8,    // inverted file, 8 bits a coordinate
  kPq4,    // inverted file, 4-bit product quantisation, compared in registers (code_scan.h)
};

// Below this a segment gets no lists: comparing all of it takes some 20 µs.
inline constexpr uint64_t kQuantisedRowsMin = 256;

// In the words of FAISS's factory; empty: no lists.
//   lists   the power of two nearest to 4 sqrt(rows), of at least 192 rows each
//   codes   one of 4 bits for 2 coordinates up to kWideCodeRowsMax rows (a dimension of 384: 96 bytes), for 4 beyond
std::string ChooseKind(SegmentKind kind, int dimension, uint64_t rows);
inline constexpr uint64_t kWideCodeRowsMax = 4'000'000;

// Vectors that a segment of so many is trained on, evenly spread over it: 64 a list, at least 4096.
uint64_t SampleRows(uint64_t rows, const std::string& kind);

// The number of lists that a kind's name begins with; 0 for none.
uint32_t ListsOfKind(const std::string& kind);

struct Probe {
  uint32_t lists;
  uint32_t candidates;  // compared with their stored vectors
  bool operator==(const Probe&) const = default;
};

// Monotone in effort, 0 ... 1:
//   lists       lists * 2^(-9 (1 - effort)), at least 16 * effort and 1: all of them at effort 1, 1 in 22 at 0.5
//   candidates  max(k, 10) * 5 * 8^effort: 5 a result at effort 0, 14 at 0.5, 40 at 1. Of a segment that has but a
//               share of all rows, times the root of the share, at least a quarter of it and k
Probe ChooseProbe(double effort, uint32_t lists, uint32_t k, double share);

// Where a filter and deletions leave less than this share of a segment, every vector that is left is compared: to find
// them through the lists, so many lists and candidates have to be looked at that it takes longer
// (`tests/bench/run.sh filter`).
inline constexpr double kScanShareMax = 0.02;

}  // namespace retro
