// The nearest rows by their codes against sums made one entry after the other, by every kernel that the processor has.
#include "retriever_service/index/code_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <random>
#include <set>
#include <span>
#include <vector>

#include "tests/packed_codes.h"

namespace retro {
namespace {

constexpr uint32_t kSeed = 20261128;

struct Case {
  size_t codes, queries, most;
  std::vector<uint32_t> lists;  // rows of each
};

// A code of every row, as numbers below 16: [rows, codes].
std::vector<uint8_t> RandomCodes(size_t rows, size_t codes, std::mt19937& random) {
  std::vector<uint8_t> values(rows * codes);
  for (uint8_t& value : values) value = static_cast<uint8_t>(random() % kCodeValues);
  return values;
}

// Numbers that bytes hold as they are. Of the first code they reach from 0 to 255, of the others they begin anywhere.
std::vector<float> WholeTables(size_t queries, size_t codes, std::mt19937& random) {
  std::vector<float> tables(queries * codes * kCodeValues);
  for (size_t code = 0; code < queries * codes; ++code) {
    const auto least = static_cast<float>(random() % 1000);
    for (size_t value = 0; value < kCodeValues; ++value) {
      tables[code * kCodeValues + value] = least + static_cast<float>(random() % 256);
    }
    if (code % codes != 0) continue;
    tables[code * kCodeValues] = 0;
    tables[code * kCodeValues + 1] = 255;
    for (size_t value = 2; value < kCodeValues; ++value) {
      tables[code * kCodeValues + value] = static_cast<float>(random() % 256);
    }
  }
  return tables;
}

std::vector<float> Sums(std::span<const uint8_t> values, std::span<const float> table) {
  const size_t codes = table.size() / kCodeValues;
  std::vector<float> sums(values.size() / codes);
  for (size_t i = 0; i < values.size(); ++i) {
    sums[i / codes] += table[i % codes * kCodeValues + values[i]];
  }
  return sums;
}

// Whether a query looks into a list: most do into most. Every one does if it is alone.
bool Visits(const Case& given, size_t query, size_t list) {
  return given.queries == 1 || std::mt19937(kSeed + 100 * query + list)() % 10 < 7;
}

// What a scan finds: [queries, most].
std::vector<int64_t> Found(const Case& given, std::span<const uint8_t> values, std::span<const float> tables,
                           CodeKernel kernel) {
  std::vector<std::vector<CodeQuad>> blocks;
  std::vector<CodeList> lists;
  uint32_t first = 0;
  for (const uint32_t rows : given.lists) {
    blocks.push_back(Packed(values.subspan(first * given.codes, rows * given.codes), given.codes));
    lists.push_back({blocks.back().empty() ? nullptr : blocks.back().data()->bytes.data(), rows, first});
    first += rows;
  }
  const CodeTables bytes(given.codes, tables);
  CodeScan scan(bytes, given.most, kernel);
  for (size_t i = 0; i < lists.size(); ++i) {
    std::vector<uint32_t> queries;
    for (size_t q = 0; q < given.queries; ++q) {
      if (Visits(given, q, i)) queries.push_back(static_cast<uint32_t>(q));
    }
    scan.Scan(lists[i], queries, lists[std::min(i + 1, lists.size() - 1)]);
  }
  std::vector<int64_t> found(given.queries * given.most, -7);
  for (size_t q = 0; q < given.queries; ++q) scan.Take(q, std::span(found).subspan(q * given.most, given.most));
  return found;
}

// What it is to find: the smallest sums of the rows of lists that a query looks into.
std::vector<float> SmallestSums(const Case& given, size_t query, std::span<const float> sums) {
  std::vector<float> smallest;
  size_t row = 0;
  for (size_t list = 0; list < given.lists.size(); row += given.lists[list++]) {
    if (!Visits(given, query, list)) continue;
    smallest.insert(smallest.end(), sums.begin() + static_cast<std::ptrdiff_t>(row),
                    sums.begin() + static_cast<std::ptrdiff_t>(row + given.lists[list]));
  }
  std::sort(smallest.begin(), smallest.end());
  smallest.resize(std::min(given.most, smallest.size()));
  return smallest;
}

class CodeScanTest : public testing::TestWithParam<Case> {};

TEST_P(CodeScanTest, FindsTheSmallestSums) {
  const Case& given = GetParam();
  std::mt19937 random(kSeed);
  size_t rows = 0;
  for (const uint32_t some : given.lists) rows += some;
  const std::vector<uint8_t> values = RandomCodes(rows, given.codes, random);
  const std::vector<float> tables = WholeTables(given.queries, given.codes, random);
  const size_t table_size = given.codes * kCodeValues;
  for (const CodeKernel kernel : CodeKernels()) {
    const std::vector<int64_t> found = Found(given, values, tables, kernel);
    EXPECT_EQ(found, Found(given, values, tables, CodeKernel::kAvx2)) << "kernels differ";
    for (size_t q = 0; q < given.queries; ++q) {
      const std::vector<float> sums = Sums(values, std::span(tables).subspan(q * table_size, table_size));
      std::vector<float> ours;
      std::set<int64_t> distinct;
      for (const int64_t place : std::span(found).subspan(q * given.most, given.most)) {
        if (place < 0) continue;
        ASSERT_LT(place, static_cast<int64_t>(rows));
        distinct.insert(place);
        ours.push_back(sums[place]);
      }
      std::sort(ours.begin(), ours.end());
      EXPECT_EQ(ours, SmallestSums(given, q, sums)) << "query " << q << ", kernel " << static_cast<int>(kernel);
      EXPECT_EQ(distinct.size(), ours.size()) << "one twice";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, CodeScanTest,
                         testing::Values(Case{1, 1, 1, {1}}, Case{2, 1, 3, {2}}, Case{3, 2, 5, {31, 33}},
                                         Case{6, 3, 40, {32, 1, 200}}, Case{7, 4, 10, {64, 0, 65}},
                                         Case{192, 1, 115, {244, 1000, 3}}, Case{192, 2, 115, {5000, 5000}},
                                         Case{192, 5, 10, {300, 299, 4000}}, Case{191, 6, 1, {1000}},
                                         Case{96, 7, 2000, {1000, 900}}, Case{190, 8, 16, {777}},
                                         Case{192, 21, 115, {900, 900, 900}}));

// Of tables whose sums 16 bits do not hold as they are the order stays, but for what rounding makes alike.
TEST(CodeScanScaleTest, WideTablesKeepTheirOrder) {
  constexpr size_t kCodes = 600;
  const Case given{kCodes, 1, 50, {3000}};
  std::mt19937 random(kSeed);
  const std::vector<uint8_t> values = RandomCodes(3000, kCodes, random);
  std::vector<float> tables(kCodes * kCodeValues);
  std::uniform_real_distribution<float> entry(-1e6F, 1e6F);
  for (float& x : tables) x = entry(random);
  const std::vector<float> sums = Sums(values, tables);
  std::vector<float> sorted = sums;
  std::sort(sorted.begin(), sorted.end());
  const float rounding = kCodes * 2e6F * kCodes / 65'535 / 4;  // a sum's, which is seldom a quarter of what it can be
  for (const CodeKernel kernel : CodeKernels()) {
    for (const int64_t place : Found(given, values, tables, kernel)) {
      ASSERT_GE(place, 0);
      EXPECT_LE(sums[place], sorted[given.most - 1] + rounding);
    }
  }
  EXPECT_GT(sorted.back() - sorted.front(), 10 * rounding) << "nothing is told apart";
}

// A row of every code's largest entry has a sum that just fits: were it to wrap, it would be the nearest.
TEST(CodeScanScaleTest, TheFarthestRowIsNotTheNearest) {
  for (const size_t codes : {256, 257, 258, 383, 600}) {
    const Case given{codes, 1, 39, {40}};
    std::vector<uint8_t> values(given.lists[0] * codes, 1);
    std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(17 * codes), codes, uint8_t{15});
    std::vector<float> tables;
    for (size_t i = 0; i < codes * kCodeValues; ++i) tables.push_back(static_cast<float>(i % kCodeValues) * 0.37F);
    for (const CodeKernel kernel : CodeKernels()) {
      const std::vector<int64_t> found = Found(given, values, tables, kernel);
      EXPECT_EQ(std::count(found.begin(), found.end(), 17), 0) << codes << " codes";
    }
  }
}

TEST(CodeScanScaleTest, TablesWithoutDifferencesFindAnyRows) {
  const Case given{4, 1, 10, {100}};
  std::mt19937 random(kSeed);
  const std::vector<uint8_t> values = RandomCodes(100, 4, random);
  const std::vector<float> tables(4 * kCodeValues, 3.0F);
  for (const CodeKernel kernel : CodeKernels()) {
    const std::vector<int64_t> found = Found(given, values, tables, kernel);
    EXPECT_EQ(std::set<int64_t>(found.begin(), found.end()).size(), given.most);
  }
}

}  // namespace
}  // namespace retro
