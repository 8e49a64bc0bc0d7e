#include "retriever_service/index/code_scan.h"

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <iterator>
#include <limits>
#include <memory>

namespace retro {
namespace {

constexpr size_t kQueriesTogether256 = 3, kQueriesTogether512 = 8;  // whose sums fit the registers
constexpr size_t kQuad = 4;                                         // codes that AVX-512 looks up at once
constexpr size_t kQuadBytes = sizeof(CodeQuad);                     // of a block, and of a table
constexpr size_t kBlocksAhead = 2;  // fetched from memory: lists follow each other in no pattern that a processor sees
constexpr uint32_t kLargestSum = 65'535;  // what the sums of AVX2 hold
constexpr float kLargestEntry = 255;

constexpr std::array<CodeKernel, 2> kKernels = {CodeKernel::kAvx2, CodeKernel::kAvx512};

bool Has(CodeKernel kernel) {
  if (kernel == CodeKernel::kAvx2) return true;  // everything here is compiled for it
  return __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vbmi") != 0 &&
         __builtin_cpu_supports("avx512vnni") != 0;
}

struct Range {
  float least, most;
};

Range RangeOf(const float* values) {
  static_assert(kCodeValues == 16);
  const __m256 a = _mm256_loadu_ps(values), b = _mm256_loadu_ps(values + 8);
  const __m256 least8 = _mm256_min_ps(a, b), most8 = _mm256_max_ps(a, b);
  __m128 least = _mm_min_ps(_mm256_castps256_ps128(least8), _mm256_extractf128_ps(least8, 1));
  __m128 most = _mm_max_ps(_mm256_castps256_ps128(most8), _mm256_extractf128_ps(most8, 1));
  least = _mm_min_ps(least, _mm_movehl_ps(least, least));
  most = _mm_max_ps(most, _mm_movehl_ps(most, most));
  return {_mm_cvtss_f32(_mm_min_ss(least, _mm_movehdup_ps(least))),
          _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)))};
}

// (value - least) * scale of eight, in 16 bits each.
__m128i Rounded(const float* values, float least, float scale) {
  const __m256 above = _mm256_sub_ps(_mm256_loadu_ps(values), _mm256_set1_ps(least));
  const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(above, _mm256_set1_ps(scale)));
  return _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

// A query's table in bytes: what every row of it has in common is left out, and one scale for all keeps the order of
// the sums, but for rounding.
//   table  [codes, 16]
void Quantise(std::span<const float> table, uint8_t* bytes) {
  const size_t codes = table.size() / kCodeValues;
  std::vector<float> least(codes);
  float widest = 0, sum = 0;
  for (size_t code = 0; code < codes; ++code) {
    const Range range = RangeOf(table.data() + code * kCodeValues);
    least[code] = range.least;
    widest = std::max(widest, range.most - range.least);
    sum += range.most - range.least;
  }
  const float scale = std::min(kLargestEntry / widest, static_cast<float>(kLargestSum - codes) / sum);  // rounding adds
  if (!(widest > 0) || !std::isfinite(scale)) return;  // no row differs from another
  for (size_t code = 0; code < codes; ++code) {
    const float* const values = table.data() + code * kCodeValues;
    const __m128i entries =
        _mm_packus_epi16(Rounded(values, least[code], scale), Rounded(values + 8, least[code], scale));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + code * kCodeValues), entries);
  }
}

}  // namespace

std::vector<CodeKernel> CodeKernels() {
  std::vector<CodeKernel> kernels;
  std::copy_if(kKernels.begin(), kKernels.end(), std::back_inserter(kernels), Has);
  return kernels;
}

CodeKernel FastestCodeKernel() {
  static const CodeKernel fastest = CodeKernels().back();
  return fastest;
}

// ---------------------------------------------------------------- what is kept

// The smallest sums of a query, and some that were among them: the smallest of all are picked out whenever it is full.
class SmallestSums {
 public:
  explicit SmallestSums(size_t most)
      : most_(most),
        room_(most + std::max(most, kRoomLeast) + kRowsABlock),
        found_(std::make_unique_for_overwrite<uint64_t[]>(room_)) {}

  // Only what is below it can be among the smallest.
  uint32_t bound() const { return bound_; }

  // `wanted` are rows of a block, a bit each, whose places follow each other.
  template <typename Sum>
  void Add(const Sum* sums, uint32_t wanted, uint32_t first_place) {
    for (; wanted != 0; wanted &= wanted - 1) {
      const auto row = static_cast<uint32_t>(std::countr_zero(wanted));
      found_[size_++] = uint64_t{sums[row]} << kSumShift | (first_place + row);
    }
    if (size_ + kRowsABlock > room_) Shrink();
  }

  void Take(std::span<int64_t> places) {
    if (size_ > most_) Shrink();
    for (size_t i = 0; i < size_; ++i) places[i] = static_cast<uint32_t>(found_[i]);
    std::fill(places.begin() + static_cast<std::ptrdiff_t>(size_), places.end(), -1);
  }

 private:
  static constexpr size_t kRoomLeast = 256;
  static constexpr int kSumShift = 32;

  void Shrink() {
    uint64_t* const last = found_.get() + most_ - 1;
    std::nth_element(found_.get(), last, found_.get() + size_);
    size_ = most_;
    bound_ = static_cast<uint32_t>(*last >> kSumShift);
  }

  size_t most_, room_;
  size_t size_ = 0;
  uint32_t bound_ = std::numeric_limits<uint32_t>::max();
  std::unique_ptr<uint64_t[]> found_;  // a sum, and below it a place
};

// ---------------------------------------------------------------- kernels

namespace {

// A list and the queries that are compared with it together.
struct Task {
  const CodeList& list;
  const CodeList& next;
  size_t codes;
  std::array<const uint8_t*, kQueriesTogether512> tables;
  std::array<SmallestSums*, kQueriesTogether512> smallest;

  size_t block_bytes() const { return codes * kRowsABlock / 2; }
  size_t blocks() const { return (list.rows + kRowsABlock - 1) / kRowsABlock; }
  const uint8_t* block(size_t at) const { return list.blocks + at * block_bytes(); }
  uint32_t first_place(size_t at) const { return list.first_place + static_cast<uint32_t>(at * kRowsABlock); }
  // What is fetched while a block is compared. It may lie behind the end of the next list: fetching may.
  const uint8_t* ahead_of(size_t at) const {
    at += kBlocksAhead;
    return at < blocks() ? block(at) : next.blocks + (at - blocks()) * block_bytes();
  }
  // Those of a block's rows that there are, a bit each.
  uint32_t rows(size_t at) const {
    const size_t left = list.rows - at * kRowsABlock;
    return left >= kRowsABlock ? ~uint32_t{0} : (uint32_t{1} << left) - 1;
  }
};

// A block's sums for one query, 16 bits each: of the rows whose codes are the low halves of even and of odd bytes, and
// of those of the high halves; in the lower 128 bits what the first of two codes adds, in the upper the second.
struct Sums256 {
  __m256i low, low_odd, high, high_odd;

  void Add(__m256i low_codes, __m256i high_codes, const uint8_t* table) {
    const __m256i entries = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table));
    const __m256i low_found = _mm256_shuffle_epi8(entries, low_codes);
    const __m256i high_found = _mm256_shuffle_epi8(entries, high_codes);
    low = _mm256_add_epi16(low, low_found);  // with the odd ones in its upper bytes, which InOrder takes out
    low_odd = _mm256_add_epi16(low_odd, _mm256_srli_epi16(low_found, 8));
    high = _mm256_add_epi16(high, high_found);
    high_odd = _mm256_add_epi16(high_odd, _mm256_srli_epi16(high_found, 8));
  }

  static __m256i InOrder(__m256i even, __m256i odd) {
    even = _mm256_sub_epi16(even, _mm256_slli_epi16(odd, 8));
    return _mm256_add_epi16(_mm256_permute2x128_si256(even, odd, 0x20), _mm256_permute2x128_si256(even, odd, 0x31));
  }

  void Give(const Task& task, size_t block, SmallestSums& smallest) const {
    if (smallest.bound() == 0) return;
    const __m256i first = InOrder(low, low_odd), second = InOrder(high, high_odd);
    const auto most = _mm256_set1_epi16(static_cast<int16_t>(std::min(smallest.bound() - 1, kLargestSum)));
    const __m256i first_within = _mm256_cmpeq_epi16(_mm256_min_epu16(first, most), first);
    const __m256i second_within = _mm256_cmpeq_epi16(_mm256_min_epu16(second, most), second);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi16(first_within, second_within), 0b11'01'10'00);
    const uint32_t wanted = static_cast<uint32_t>(_mm256_movemask_epi8(packed)) & task.rows(block);
    if (wanted == 0) return;
    alignas(32) std::array<uint16_t, kRowsABlock> sums;
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums.data()), first);
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums.data() + kRowsABlock / 2), second);
    smallest.Add(sums.data(), wanted, task.first_place(block));
  }
};

template <size_t kQueries>
void Compare256(const Task& task) {
  const __m256i low_half = _mm256_set1_epi8(0x0f);
  for (size_t at = 0; at < task.blocks(); ++at) {
    const uint8_t* const block = task.block(at);
    const uint8_t* const ahead = task.ahead_of(at);
    std::array<Sums256, kQueries> sums = {};
    for (size_t pair = 0; pair < task.codes / 2; ++pair) {
      if (pair % 2 == 0) __builtin_prefetch(ahead + pair * kRowsABlock);
      const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + pair * kRowsABlock));
      const __m256i low = _mm256_and_si256(codes, low_half);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), low_half);
#pragma GCC unroll 4
      for (size_t q = 0; q < kQueries; ++q) sums[q].Add(low, high, task.tables[q] + pair * kRowsABlock);
    }
#pragma GCC unroll 4
    for (size_t q = 0; q < kQueries; ++q) sums[q].Give(task, at, *task.smallest[q]);
  }
}

#define RETRO_AVX512 __attribute__((target("avx512f,avx512bw,avx512vbmi,avx512vnni")))

// Of the forms without a mask GCC 12 warns that they read what nobody wrote.
constexpr __mmask64 kAll64 = ~__mmask64{0};
constexpr __mmask64 kHalf64 = 0xffff'ffff;
constexpr __mmask16 kAll16 = 0xffff;
RETRO_AVX512 inline __m512i Permuted(__m512i places, __m512i bytes) {
  return _mm512_maskz_permutexvar_epi8(kAll64, places, bytes);
}

// For byte 4 r + c the place of row r's byte in the 16 of code c, which a quad of codes has one after the other.
constexpr auto kByRow = [] {
  std::array<uint8_t, kQuadBytes> places = {};
  for (size_t row = 0; row < kRowsABlock / 2; ++row) {
    for (size_t code = 0; code < kQuad; ++code) {
      places[row * kQuad + code] = static_cast<uint8_t>(code * kCodeValues + (row < 8 ? 2 * row : 2 * (row - 8) + 1));
    }
  }
  return places;
}();

// A block's sums for one query, 32 bits each: rows 0 to 15, and 16 to 31.
struct Sums512 {
  __m512i low, high;

  RETRO_AVX512 void Add(__m512i low_codes, __m512i high_codes, const uint8_t* table) {
    const __m512i entries = _mm512_loadu_si512(table);
    const __m512i ones = _mm512_set1_epi8(1);
    low = _mm512_dpbusd_epi32(low, Permuted(low_codes, entries), ones);
    high = _mm512_dpbusd_epi32(high, Permuted(high_codes, entries), ones);
  }

  RETRO_AVX512 void Give(const Task& task, size_t block, SmallestSums& smallest) const {
    const __m512i bound = _mm512_set1_epi32(static_cast<int>(smallest.bound()));
    const uint32_t within = _mm512_cmplt_epu32_mask(low, bound) |
                            static_cast<uint32_t>(_mm512_cmplt_epu32_mask(high, bound)) << kRowsABlock / 2;
    const uint32_t wanted = within & task.rows(block);
    if (wanted == 0) return;
    alignas(64) std::array<uint32_t, kRowsABlock> sums;
    _mm512_store_si512(sums.data(), low);
    _mm512_store_si512(sums.data() + kRowsABlock / 2, high);
    smallest.Add(sums.data(), wanted, task.first_place(block));
  }
};

template <size_t kQueries>
RETRO_AVX512 void Compare512(const Task& task) {
  const __m512i by_row = _mm512_loadu_si512(kByRow.data());
  const __m512i low_half = _mm512_set1_epi8(0x0f);
  const __m512i table_of_code = _mm512_set1_epi32(0x30201000);  // of the four in a quad's 64 bytes
  constexpr int kAndOr = 0xEA;                                  // (a & b) | c
  for (size_t at = 0; at < task.blocks(); ++at) {
    const uint8_t* const block = task.block(at);
    const uint8_t* const ahead = task.ahead_of(at);
    std::array<Sums512, kQueries> sums = {};
    for (size_t begin = 0; begin < task.block_bytes(); begin += kQuadBytes) {
      __builtin_prefetch(ahead + begin);
      // Of the last quad there may be half.
      const __m512i quad = begin + kQuadBytes <= task.block_bytes() ? _mm512_loadu_si512(block + begin)
                                                                    : _mm512_maskz_loadu_epi8(kHalf64, block + begin);
      const __m512i codes = Permuted(by_row, quad);
      const __m512i low = _mm512_ternarylogic_epi32(codes, low_half, table_of_code, kAndOr);
      const __m512i high =
          _mm512_ternarylogic_epi32(_mm512_maskz_srli_epi32(kAll16, codes, 4), low_half, table_of_code, kAndOr);
#pragma GCC unroll 8
      for (size_t q = 0; q < kQueries; ++q) sums[q].Add(low, high, task.tables[q] + begin);
    }
#pragma GCC unroll 8
    for (size_t q = 0; q < kQueries; ++q) sums[q].Give(task, at, *task.smallest[q]);
  }
}

using Kernel = void (*)(const Task&);

// For 1, 2, ... queries.
constexpr std::array<Kernel, kQueriesTogether256> kKernels256 = {Compare256<1>, Compare256<2>, Compare256<3>};
constexpr std::array<Kernel, kQueriesTogether512> kKernels512 = {Compare512<1>, Compare512<2>, Compare512<3>,
                                                                 Compare512<4>, Compare512<5>, Compare512<6>,
                                                                 Compare512<7>, Compare512<8>};

std::span<const Kernel> KernelsOf(CodeKernel kernel) {
  if (kernel == CodeKernel::kAvx512) return kKernels512;
  return kKernels256;
}

}  // namespace

// ---------------------------------------------------------------- a search

CodeTables::CodeTables(size_t codes, std::span<const float> tables) : codes_((codes + 1) / 2 * 2) {
  const size_t size = codes * kCodeValues;
  assert(tables.size() % size == 0);
  quads_.resize(tables.size() / size * quads_of_one());
  for (size_t query = 0; query < queries(); ++query) {
    Quantise(tables.subspan(query * size, size), quads_[query * quads_of_one()].bytes.data());
  }
}

CodeScan::CodeScan(const CodeTables& tables, size_t most, CodeKernel kernel) : tables_(tables), kernel_(kernel) {
  assert(most > 0);
  smallest_.reserve(tables.queries());
  for (size_t query = 0; query < tables.queries(); ++query) smallest_.emplace_back(most);
}

CodeScan::~CodeScan() = default;

void CodeScan::Scan(const CodeList& list, std::span<const uint32_t> queries, const CodeList& next) {
  const std::span<const Kernel> kernels = KernelsOf(kernel_);
  for (size_t begin = 0; begin < queries.size(); begin += kernels.size()) {
    const auto some = queries.subspan(begin, std::min(kernels.size(), queries.size() - begin));
    Task task{.list = list, .next = next, .codes = tables_.codes(), .tables = {}, .smallest = {}};
    for (size_t i = 0; i < some.size(); ++i) {
      task.tables[i] = tables_.Of(some[i]);
      task.smallest[i] = &smallest_[some[i]];
    }
    kernels[some.size() - 1](task);
  }
}

void CodeScan::Take(size_t query, std::span<int64_t> places) { smallest_[query].Take(places); }

}  // namespace retro
